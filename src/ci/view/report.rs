//! What commands and pages print as JSON: the same for both.

use serde::Serialize;

use super::{About, Job, LogAt, Look, Moment, Record, logs};
use crate::ci::layout::Target;

/// A target.
#[derive(Clone, Debug, Serialize)]
pub struct TargetReport {
    pub target: String,
    pub state: Look,
    /// One sentence for the whole.
    pub text: String,
    /// The source commit that this is about.
    pub source: Option<String>,
    /// The commit of the status branch that says so.
    pub commit: String,
    /// The forge has the target still.
    pub open: bool,
    /// Its newest commit there, which may not be tested yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<String>,
    /// Of a pull request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    pub jobs: Vec<JobReport>,
}

/// A step, or one cell of it.
#[derive(Clone, Debug, Serialize)]
pub struct JobReport {
    pub name: String,
    pub state: Look,
    pub text: String,
    pub needs: Vec<String>,
    pub logs: Vec<LogAt>,
}

/// A moment of a target's history.
#[derive(Clone, Debug, Serialize)]
pub struct MomentReport {
    pub commit: String,
    /// In UTC, as in RFC 3339.
    pub time: String,
    pub message: String,
}

impl TargetReport {
    pub fn new(target: &Target, record: &Record, about: Option<&About>) -> Self {
        Self {
            target: target.to_string(),
            state: record.look(),
            text: record.summary(),
            source: record.source.clone(),
            commit: record.commit.to_hex(),
            open: about.is_some(),
            head: about.map(|about| about.head.clone()),
            title: about.and_then(|about| about.title.clone()),
            jobs: record.jobs.iter().map(JobReport::new).collect(),
        }
    }
}

impl JobReport {
    fn new(job: &Job) -> Self {
        Self {
            name: job.name.clone(),
            state: job.look(),
            text: job.text().to_owned(),
            needs: job.needs.clone(),
            logs: logs(&job.output.logs),
        }
    }
}

impl MomentReport {
    pub fn new(moment: &Moment) -> Self {
        Self {
            commit: moment.commit.to_hex(),
            time: utc(moment.time.seconds),
            message: moment.message.clone(),
        }
    }
}

/// Returns a moment as in RFC 3339.
pub fn utc(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |at| at.to_string())
}
