//! The exit codes: a contract with scripts. A number never gets another meaning; 0 is success and
//! nothing else is.

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// Any other error.
    Other = 1,
    /// The command line cannot be understood.
    Usage = 2,
    /// The job failed; what was changed stands.
    Failed = 3,
    /// The job failed, and everything that was changed is put back.
    Undone = 4,
    /// Some targets were not helped, within the failure budget.
    PartlyDone = 5,
    /// The job was cancelled, or the person asked said no.
    Cancelled = 6,
    /// `--timeout` passed; the job goes on.
    TimedOut = 7,
    /// The job waits for an approval.
    WaitsForApproval = 8,
    /// The runbook is invalid.
    Invalid = 9,
    /// The plan has changes (`--detailed-exitcode`).
    Changes = 10,
    /// Not signed in, or not allowed.
    NotAllowed = 11,
    /// The server cannot be reached.
    Unreachable = 12,
    /// The plan is refused or blocked; nothing was touched.
    Refused = 13,
    /// A target rests as unknown or stuck.
    NeedsOperator = 14,
    /// Ctrl-C: detached, the job goes on.
    Detached = 130,
}

impl Exit {
    /// Every code, in order.
    pub const ALL: [Exit; 16] = [
        Self::Ok,
        Self::Other,
        Self::Usage,
        Self::Failed,
        Self::Undone,
        Self::PartlyDone,
        Self::Cancelled,
        Self::TimedOut,
        Self::WaitsForApproval,
        Self::Invalid,
        Self::Changes,
        Self::NotAllowed,
        Self::Unreachable,
        Self::Refused,
        Self::NeedsOperator,
        Self::Detached,
    ];

    /// The number.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The code of a number, as servers send it.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|exit| exit.code() == code)
    }

    /// What it says, for `--help`.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Other => "any other error",
            Self::Usage => "the command line cannot be understood",
            Self::Failed => "the job failed; what was changed stands",
            Self::Undone => "the job failed, and everything it changed was put back",
            Self::PartlyDone => {
                "partly done: some targets were not helped, within the failure budget"
            }
            Self::Cancelled => "cancelled, or declined when asked",
            Self::TimedOut => "--timeout passed; a job goes on",
            Self::WaitsForApproval => "the job waits for an approval",
            Self::Invalid => "the runbook is invalid",
            Self::Changes => "the plan has changes (--detailed-exitcode)",
            Self::NotAllowed => "not signed in, or not allowed",
            Self::Unreachable => "the server cannot be reached",
            Self::Refused => "the plan is refused or blocked; nothing was touched",
            Self::NeedsOperator => "a target rests as unknown or stuck and needs an operator",
            Self::Detached => "Ctrl-C: detached; a job goes on",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// The table in `--help`.
pub fn table() -> String {
    let rows = Exit::ALL.map(|exit| format!("  {:>3}  {}", exit.code(), exit.meaning()));
    format!("Exit codes (stable):\n{}", rows.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_what_scripts_rely_on() {
        insta::assert_snapshot!(table(), @r"
        Exit codes (stable):
            0  ok
            1  any other error
            2  the command line cannot be understood
            3  the job failed; what was changed stands
            4  the job failed, and everything it changed was put back
            5  partly done: some targets were not helped, within the failure budget
            6  cancelled, or declined when asked
            7  --timeout passed; a job goes on
            8  the job waits for an approval
            9  the runbook is invalid
           10  the plan has changes (--detailed-exitcode)
           11  not signed in, or not allowed
           12  the server cannot be reached
           13  the plan is refused or blocked; nothing was touched
           14  a target rests as unknown or stuck and needs an operator
          130  Ctrl-C: detached; a job goes on
        ");
    }

    #[test]
    fn a_number_names_one_code() {
        for exit in Exit::ALL {
            assert_eq!(Exit::from_code(exit.code()), Some(exit));
        }
        assert_eq!(Exit::from_code(15), None);
    }
}
