//! Commits in etcd's words. Pure.

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse, TxnResponse};

use crate::store::{Commit, Error, Precondition, Result, Write};

/// One commit, one transaction.
pub(super) fn single(commit: &Commit) -> Txn {
    Txn::new()
        .when(compares(&commit.preconditions))
        .and_then(operations(&commit.writes))
}

/// A fence around one nested transaction a commit, so that each has an outcome of its own.
pub(super) fn group(fence: &[Precondition], commits: &[Commit]) -> Txn {
    let nested: Vec<TxnOp> = commits
        .iter()
        .map(|commit| TxnOp::txn(single(commit)))
        .collect();
    Txn::new().when(compares(fence)).and_then(nested)
}

/// Which commits of a group were written. None where the fence did not hold.
pub(super) fn written(answer: &TxnResponse, commits: usize) -> Result<Vec<bool>> {
    if !answer.succeeded() {
        return Ok(vec![false; commits]);
    }
    let answers = answer.op_responses();
    let written: Vec<bool> = answers
        .iter()
        .filter_map(|answer| match answer {
            TxnOpResponse::Txn(nested) => Some(nested.succeeded()),
            TxnOpResponse::Put(_) | TxnOpResponse::Get(_) | TxnOpResponse::Delete(_) => None,
        })
        .collect();
    if written.len() != commits {
        return Err(Error::Corrupt {
            place: "a group of commits".to_owned(),
            why: format!("{} answers to {commits} commits", written.len()),
        });
    }
    Ok(written)
}

fn compares(preconditions: &[Precondition]) -> Vec<Compare> {
    preconditions.iter().map(compare).collect()
}

fn compare(precondition: &Precondition) -> Compare {
    match precondition {
        Precondition::Absent(key) => Compare::create_revision(key.as_str(), CompareOp::Equal, 0),
        Precondition::Exists(key) => Compare::create_revision(key.as_str(), CompareOp::Greater, 0),
        Precondition::Modified { key, at } => {
            Compare::mod_revision(key.as_str(), CompareOp::Equal, at.0)
        }
        Precondition::Created { key, at } => {
            Compare::create_revision(key.as_str(), CompareOp::Equal, at.0)
        }
    }
}

fn operations(writes: &[Write]) -> Vec<TxnOp> {
    writes.iter().map(operation).collect()
}

fn operation(write: &Write) -> TxnOp {
    match write {
        Write::Put { key, value, lease } => {
            let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
            TxnOp::put(key.as_str(), value.as_ref(), options)
        }
        Write::Delete { key } => TxnOp::delete(key.as_str(), None),
    }
}
