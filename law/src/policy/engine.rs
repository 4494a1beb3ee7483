//! The engine: loads a policy set whole, and answers questions.

use super::{Answer, Decision, DecisionRecord, Denial, Question, Verdict};
use crate::catalog::{Catalog, Floor};

/// One policy file.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// Its name, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// One thing that is wrong with a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyProblem {
    /// The file.
    pub source: String,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong, and what to write instead.
    pub what: String,
}

/// A policy set that passed every check.
#[derive(Debug)]
pub struct Engine {
    digest: String,
}

impl Engine {
    /// Loads a policy set.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn load(_catalog: &Catalog, _sources: &[PolicySource]) -> Result<Self, Vec<PolicyProblem>> {
        Ok(Self { digest: String::new() })
    }

    /// The digest of the policy set and the catalog.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Answers a question.
    #[must_use]
    pub fn decide(&self, question: &Question<'_>) -> Decision {
        let denial = Denial::NoPermit { nearest: None };
        let record = DecisionRecord {
            id: question.id,
            answer: Answer::Deny,
            agent: question.agent.clone(),
            pair: question.pair.clone(),
            params: question.params.cloned(),
            ttl: question.ttl,
            at: question.now,
            liveness: question.liveness.to_owned(),
            task_age: question.task_age,
            proof: question.proof.to_owned(),
            renewal: question.renewal,
            policies: Vec::new(),
            policy_digest: self.digest.clone(),
            floor: Floor::Permit,
            denial: Some(denial.clone()),
            need: None,
        };
        Decision { verdict: Verdict::Deny(denial), record }
    }
}
