//! From a judgement to what a mail server is told.

use mail::{HeaderFields, Status};
use mailauth::{authentication_results, is_forged};
use policy::{Decision, Disposition, EffectivePolicy, Key};

use super::proto::Response;
use crate::headers::{OWN_FIELDS, spam_values};
use crate::verdict::Judgement;

/// The changes and the last word for one message: a milter has one answer for all recipients.
/// With `leading_space`, values bring the space after the colon themselves.
pub fn answers(
    judgement: &Judgement,
    decision: &Decision,
    policy: &EffectivePolicy,
    message: &[u8],
    host_name: &str,
    leading_space: bool,
) -> Vec<Response> {
    match &decision.disposition {
        Disposition::Reject(status) | Disposition::Defer(status) => return vec![reply(status)],
        Disposition::Deliver | Disposition::DeliverTagged { .. } | Disposition::Junk | Disposition::Quarantine => {}
    }
    let mut out = removals(message, host_name);
    for (name, value) in spam_values(&judgement.findings, decision, policy.score(Key::TagScore)) {
        out.push(Response::AddHeader { name: name.into(), value: field_value(&value) });
    }
    if let Some(auth) = &judgement.auth {
        let field = authentication_results(host_name, auth);
        if let Some((name, value)) = field.split_once(": ") {
            let value = field_value(value.trim_end());
            out.push(Response::InsertHeader { index: 0, name: name.into(), value });
        }
    }
    if let Disposition::DeliverTagged { subject_tag: Some(tag) } = &decision.disposition {
        let subject = HeaderFields::of(message).find(|field| field.is("Subject")).map(|field| field.unfolded());
        let value = [tag.as_bytes(), b" ", subject.as_deref().unwrap_or_default()].concat();
        out.push(match subject {
            Some(_) => Response::ChangeHeader { index: 1, name: b"Subject".to_vec(), value },
            None => Response::AddHeader { name: b"Subject".to_vec(), value },
        });
    }
    if leading_space {
        out.iter_mut().for_each(put_space);
    }
    if decision.disposition == Disposition::Quarantine {
        out.push(Response::Quarantine(decision.cause.to_string().into_bytes()));
    }
    out.push(Response::Continue);
    out
}

/// Fields that only we may write are removed, the last of a name first, so that the numbers of the others stay.
fn removals(message: &[u8], host_name: &str) -> Vec<Response> {
    let mut out = Vec::new();
    for name in OWN_FIELDS.into_iter().chain(["Authentication-Results"]) {
        let mut index = 0u32;
        for field in HeaderFields::of(message).filter(|field| field.is(name)) {
            index = index.saturating_add(1);
            if name != "Authentication-Results" || is_forged(&field, host_name) {
                out.push(Response::ChangeHeader { index, name: name.into(), value: Vec::new() });
            }
        }
    }
    out.reverse();
    out
}

fn put_space(change: &mut Response) {
    if let Response::AddHeader { value, .. }
    | Response::InsertHeader { value, .. }
    | Response::ChangeHeader { value, .. } = change
        && !value.is_empty()
    {
        value.insert(0, b' ');
    }
}

/// `%` is doubled: mail servers read the text as a format.
fn reply(status: &Status) -> Response {
    Response::ReplyCode(status.to_string().replace('%', "%%").into_bytes())
}

/// Milters write a fold as LF.
fn field_value(value: &str) -> Vec<u8> {
    value.replace("\r\n", "\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verdict::Seen;
    use policy::{Finding, Layer, Level, Presets, ReasonClass, Score, VirusState};

    fn answer(policy: &str, score: i32, virus: VirusState, message: &str) -> Vec<String> {
        let layer = Layer::parse(Level::System, "p", policy).unwrap();
        let policy = EffectivePolicy::resolve(&Presets::shipped(), &[layer]);
        let finding = Finding {
            stage: policy::Stage::Body,
            name: "A".into(),
            score: Score::points(score),
            class: ReasonClass::Content,
            description: "a".into(),
            evidence: String::new(),
        };
        let auth = Some(mailauth::AuthOutcome::default());
        let judgement = Judgement::of(Seen { findings: vec![finding], virus, auth, ..Seen::default() }, &policy);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let decision = policy::decide(&policy, &judgement.facts());
        answers(&judgement, &decision, &policy, message.as_bytes(), "mx.test", false)
            .iter()
            .map(|response| match response {
                Response::AddHeader { name, value } => format!("+{}:{}", text(name), text(value)),
                Response::InsertHeader { index, name, value } => format!("{index}+{}:{}", text(name), text(value)),
                Response::ChangeHeader { index, name, value } => format!("{index}={}:{}", text(name), text(value)),
                Response::ReplyCode(line) => text(line),
                other => format!("{other:?}").split('(').next().unwrap().to_owned(),
            })
            .collect()
    }

    #[test]
    fn clean_mail_gets_its_fields_and_loses_forged_ones() {
        let message = "X-Spam-Flag: NO\r\nAuthentication-Results: mx.test; spf=pass\r\n\
                       Authentication-Results: other.test; spf=pass\r\nx-spam-flag: YES\r\n\
                       Authentication-Results: MX.test; spf=pass\r\n\r\n";
        assert_eq!(
            answer("", 1, VirusState::Clean, message),
            [
                "3=Authentication-Results:",
                "1=Authentication-Results:",
                "2=X-Spam-Flag:",
                "1=X-Spam-Flag:",
                "+X-Spam-Status:No, score=1.0 required=4.0\n\ttests=A=1.0",
                "+X-Spam-Score:1.0",
                "0+Authentication-Results:mx.test;\n\tdkim=none;\n\tdmarc=none",
                "Continue",
            ]
        );
    }

    #[test]
    fn spam_is_tagged_held_or_refused() {
        let tagged = answer("when-tagged = \"subject\"", 5, VirusState::Clean, "Subject: hi\r\n there\r\n\r\n");
        assert!(tagged.contains(&"1=Subject:[SPAM] hi there".to_owned()), "{tagged:?}");
        assert!(tagged.contains(&"+X-Spam-Flag:YES".to_owned()));
        let held = answer("", 7, VirusState::Clean, "");
        assert_eq!(held.get(held.len() - 2..).unwrap(), ["Quarantine", "Continue"]);
        assert_eq!(answer("", 20, VirusState::Clean, ""), ["554 5.7.1 Message refused as spam"]);
        let virus = answer("", 0, VirusState::Found("Eicar".into()), "");
        assert_eq!(virus, ["554 5.7.1 Message refused: it carries a virus"]);
        assert!(answer("", 0, VirusState::Unavailable, "")[0].starts_with("451 4.7.0 "));
    }
}
