//! What GitHub and GitLab call the same things of their jobs.

/// What a rule names of one platform's jobs, and what that platform calls it.
pub(super) struct Words {
    /// Who owns the repository, and which it is: ids, which nobody else ever gets.
    pub(super) ids: [&'static str; 2],
    pub(super) refs: &'static str,
    pub(super) workflow: &'static str,
    pub(super) event: &'static str,
    /// What could be given to somebody else.
    pub(super) names: [&'static str; 3],
}

/// What both call the environment of a job.
pub(super) const ENVIRONMENT: &str = "environment";

pub(super) const GITHUB: Words = Words {
    ids: ["repository_owner_id", "repository_id"],
    refs: "ref",
    workflow: "job_workflow_ref",
    event: "event_name",
    names: ["repository", "repository_owner", "sub"],
};

pub(super) const GITLAB: Words = Words {
    ids: ["namespace_id", "project_id"],
    refs: "ref_path",
    workflow: "ci_config_ref_uri",
    event: "pipeline_source",
    names: ["project_path", "namespace_path", "sub"],
};
