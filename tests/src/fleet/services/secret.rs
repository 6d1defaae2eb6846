//! Passwords that are drawn for one fleet and written nowhere but into files of their owner.

use std::fmt;

use rand::RngExt;

/// A password. Its `Debug` shows nothing, so that no error or log does by accident.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// Draws one: 128 bits as hexadecimal digits, which need no quoting in a URL, in SQL or in a file.
    pub(super) fn draw() -> Self {
        Self(hex::encode(rand::rng().random::<[u8; 16]>()))
    }

    /// The password itself, for a file or a connection.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_drawn_anew_and_does_not_show_itself() {
        let (one, other) = (Secret::draw(), Secret::draw());
        assert_ne!(one.expose(), other.expose());
        assert!(!format!("{one:?}").contains(one.expose()));
    }
}
