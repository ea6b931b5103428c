//! Reports about TLS (RFC 8460): read, and written.

use std::collections::BTreeMap;

use base::UtcMillis;
use mail::date;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::report::{TlsDetail, TlsPolicy, TlsReport, Unreadable, tame};
use crate::seen::TlsSeen;

/// Policies and details beyond are not read.
const POLICIES_MAX: usize = 1000;
const DETAILS_MAX: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Text {
    #[serde(default)]
    organization_name: String,
    #[serde(default)]
    report_id: String,
    date_range: Range,
    policies: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Range {
    start_datetime: String,
    end_datetime: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    policy: Policy,
    summary: Summary,
    #[serde(default)]
    failure_details: Vec<Failure>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Policy {
    policy_type: String,
    policy_domain: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Summary {
    #[serde(default)]
    total_successful_session_count: u64,
    #[serde(default)]
    total_failure_session_count: u64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Failure {
    result_type: String,
    #[serde(default)]
    receiving_mx_hostname: String,
    #[serde(default)]
    failed_session_count: u64,
    #[serde(default)]
    failure_reason_code: String,
}

/// Reads a report (RFC 8460 §4.4).
pub fn read(json: &[u8]) -> Result<TlsReport, Unreadable> {
    let wrong = |what: String| Unreadable(format!("TLS report: {what}"));
    let text: Text = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
    let second = |text: &str| {
        let at = date::parse_utc(text).ok_or_else(|| wrong(format!("`{}` is no time", tame(text))))?;
        Ok(at.0.div_euclid(1000))
    };
    let detail = |failure: Failure| TlsDetail {
        result: tame(&failure.result_type),
        host: tame(&failure.receiving_mx_hostname),
        sessions: failure.failed_session_count,
        reason: tame(&failure.failure_reason_code),
    };
    let policy = |entry: Entry| TlsPolicy {
        domain: tame(&entry.policy.policy_domain).trim_end_matches('.').to_lowercase(),
        kind: tame(&entry.policy.policy_type),
        successes: entry.summary.total_successful_session_count,
        failures: entry.summary.total_failure_session_count,
        details: entry.failure_details.into_iter().take(DETAILS_MAX).map(detail).collect(),
    };
    Ok(TlsReport {
        submitter: tame(&text.organization_name),
        id: tame(&text.report_id),
        begin: second(&text.date_range.start_datetime)?,
        end: second(&text.date_range.end_datetime)?,
        policies: text.policies.into_iter().take(POLICIES_MAX).map(policy).collect(),
    })
}

/// What a report of ours says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Heading {
    pub submitter: String,
    pub contact: String,
    pub id: String,
    pub begin: UtcMillis,
    /// The last second that counts.
    pub end: UtcMillis,
    pub domain: String,
}

/// Kind, lines and names of a policy.
type PolicyKey<'a> = (&'a str, &'a [String], &'a [String]);

/// A report of ours about one domain's servers.
pub fn write(heading: &Heading, seen: &[(TlsSeen, u64)]) -> String {
    let mut policies: BTreeMap<PolicyKey<'_>, Vec<&(TlsSeen, u64)>> = BTreeMap::new();
    for one in seen {
        let key = (one.0.policy.as_str(), one.0.strings.as_slice(), one.0.hosts.as_slice());
        policies.entry(key).or_default().push(one);
    }
    let entry = |((kind, strings, hosts), sessions): (&PolicyKey<'_>, &Vec<&(TlsSeen, u64)>)| {
        let sum = |is_failure: bool| {
            let counted = sessions.iter().filter(|(seen, _)| seen.failure.is_some() == is_failure);
            counted.map(|(_, count)| count).sum::<u64>()
        };
        let details = sessions.iter().filter_map(|(seen, count)| {
            let failure = seen.failure.as_ref()?;
            Some(json!({
                "result-type": failure.result,
                "sending-mta-ip": failure.from,
                "receiving-mx-hostname": failure.host,
                "receiving-ip": failure.ip,
                "failed-session-count": count,
                "failure-reason-code": failure.reason,
            }))
        });
        let mut policy = json!({ "policy-type": kind, "policy-domain": heading.domain });
        if let Some(fields) = policy.as_object_mut().filter(|_| !strings.is_empty()) {
            fields.insert("policy-string".to_owned(), json!(strings));
        }
        if let Some(fields) = policy.as_object_mut().filter(|_| !hosts.is_empty()) {
            fields.insert("mx-host".to_owned(), json!(hosts));
        }
        json!({
            "policy": policy,
            "summary": { "total-successful-session-count": sum(false), "total-failure-session-count": sum(true) },
            "failure-details": details.collect::<Vec<Value>>(),
        })
    };
    let report = json!({
        "organization-name": heading.submitter,
        "date-range": {
            "start-datetime": date::format_utc(heading.begin),
            "end-datetime": date::format_utc(heading.end),
        },
        "contact-info": heading.contact,
        "report-id": heading.id,
        "policies": policies.iter().map(entry).collect::<Vec<_>>(),
    });
    let mut text = serde_json::to_string_pretty(&without_nulls(report)).unwrap_or_default();
    text.push('\n');
    text
}

/// What is not known is left out.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}
