//! Signatures on copies that leave.

use base::event;
use bytes::Bytes;
use directory::DirectoryError;
use filter::Source;
use mail::mime::address_list::parse_address_list;
use mail::{Address, HeaderFields, Status};
use mailauth::ConnectionFacts;

use crate::intake::{Incoming, Intake, UNAVAILABLE};

impl Intake {
    /// Whole fields to go before `content`: our signature on what an own user sends, our seal on what is passed on. Empty
    /// without keys.
    ///
    /// # Errors
    /// The directory does not say which keys there are.
    pub(crate) async fn signature(&self, incoming: &Incoming<'_>, content: &Bytes) -> Result<String, Status> {
        let signed = if incoming.source.is_outbound() {
            self.sign(incoming, content).await
        } else {
            self.seal(incoming, content).await
        };
        signed.map_err(|error| {
            tracing::error!(event = event::STORE_FAILED, what = "directory", queue_id = %incoming.id, %error);
            UNAVAILABLE
        })
    }

    async fn sign(&self, incoming: &Incoming<'_>, content: &Bytes) -> Result<String, DirectoryError> {
        let Some(domain) = self.signing_domain(incoming, content).await? else { return Ok(String::new()) };
        self.parts.outgoing.keyring.sign(&domain, content).await
    }

    /// The author's domain, by which receivers judge (RFC 9989 §4.4), if the author is who sends: nobody gets a signature
    /// for somebody else's name. Else the domain of the reverse-path, which was checked.
    async fn signing_domain(&self, incoming: &Incoming<'_>, content: &Bytes) -> Result<Option<String>, DirectoryError> {
        let sender = incoming.envelope.reverse_path.address().map(|address| address.domain.to_string());
        let Some(submitter) = &incoming.submitter else { return Ok(sender) };
        let authors = authors(content);
        if authors.is_empty() {
            return Ok(sender);
        }
        let own = self.parts.directory.sender_addresses(submitter.account).await?;
        let is_own = |author: &Address| own.iter().any(|own| own.to_folded() == author.to_folded());
        let first = authors.first().map(|author| author.domain.to_string());
        Ok(if authors.iter().all(is_own) { first } else { sender })
    }

    async fn seal(&self, incoming: &Incoming<'_>, content: &Bytes) -> Result<String, DirectoryError> {
        let parts = &self.parts;
        let Some(signer) = parts.outgoing.keyring.sealer(&parts.host_name).await? else { return Ok(String::new()) };
        let Some(resolver) = &parts.resolver else { return Ok(String::new()) };
        let (ip, helo) = match &incoming.source {
            Source::Client { ip, helo, .. } => (Some(*ip), helo.clone()),
            Source::Submitter { .. } | Source::Relay | Source::File => (None, String::new()),
        };
        let reverse_path = incoming.envelope.reverse_path.clone();
        let facts = ConnectionFacts { ip, helo, reverse_path, host_name: parts.host_name.clone() };
        match mailauth::sign::seal(resolver, &facts, &signer, &incoming.content, content).await {
            Ok(set) => Ok(set),
            // It goes on without our word.
            Err(error) => {
                tracing::warn!(event = event::SIGNING_FAILED, queue_id = %incoming.id, domain = signer.domain(), %error);
                Ok(String::new())
            }
        }
    }
}

/// Who wrote it; nobody where a name cannot be read.
fn authors(message: &[u8]) -> Vec<Address> {
    let mut found = Vec::new();
    for field in HeaderFields::of(message).filter(|field| field.is("From")) {
        for address in parse_address_list(field.value) {
            let Some(address) = address.addr_spec().and_then(|text| text.parse().ok()) else { return Vec::new() };
            found.push(address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authors_are_all_named() {
        for (message, expected) in [
            ("From: Anna <anna@a.test>\r\n\r\n", "anna@a.test"),
            ("From: anna@a.test, \"B, C\" <b@b.test>\r\nTo: x@x.test\r\n\r\nFrom: y@y.test", "anna@a.test b@b.test"),
            ("From: anna@a.test\r\nFrom: eve@e.test\r\n\r\n", "anna@a.test eve@e.test"),
            ("From: anna@a.test, nobody\r\n\r\n", ""),
            ("Subject: x\r\n\r\n", ""),
        ] {
            let told: Vec<String> = authors(message.as_bytes()).iter().map(ToString::to_string).collect();
            assert_eq!(told.join(" "), expected, "{message}");
        }
    }
}
