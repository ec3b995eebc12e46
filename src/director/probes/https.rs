//! An HTTP request over TLS 1.2 or 1.3, and whose certificate answers it (RFC 8446, RFC 9525).
//! The records are rustls's business; bytes go in and come out of buffers, and [`super::http`] reads
//! what was in them.
//!
//! Two things TLS needs the core does not have. The time of day, for the validity of certificates,
//! is told by the caller with every step ([`TimeOfDay`]). Randomness, for keys that nobody may guess,
//! comes from the kernel, by a system call within `ring`: the one input of the core that its caller
//! does not give. It shows in what a handshake says, never in what follows from it.
//!
//! Nothing is kept from one check to the next: a session taken up again would not show the
//! certificate, and that of one real server would be offered to another.

use core::fmt;
use core::net::IpAddr;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnection, Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};

use super::http::{self, Verdict};
use super::{Fault, Stage};
use crate::config::check::HttpsCheck;

/// Configurations of TLS that are kept for the next check: one for each file of certificates in use,
/// and one for checks that look at none.
const PREPARED_MAX: usize = 16;
/// Plain text read at a time.
const PIECE_LEN: usize = 4096;

/// Seconds since 1970, as the caller last told them.
#[derive(Debug, Default)]
struct TimeOfDay(AtomicU64);

impl TimeProvider for TimeOfDay {
    fn current_time(&self) -> Option<UnixTime> {
        Some(UnixTime::since_unix_epoch(Duration::from_secs(self.0.load(Ordering::Relaxed))))
    }
}

/// What checks have in common.
#[derive(Default)]
pub(super) struct Preparation {
    time: Arc<TimeOfDay>,
    /// By the text of the certificates that are trusted; the oldest first.
    prepared: VecDeque<(Option<Arc<str>>, Arc<ClientConfig>)>,
}

impl Preparation {
    /// The time of day is now so much after 1970.
    pub fn set_time(&self, time: Duration) {
        self.time.0.store(time.as_secs(), Ordering::Relaxed);
    }

    /// A conversation with the server at an address; the fault if it cannot even begin.
    pub fn session(&mut self, check: &HttpsCheck, address: IpAddr) -> Result<Session, Fault> {
        let name = match check.server_name.as_deref() {
            Some(name) => ServerName::try_from(name.to_owned())
                .map_err(|_| Fault::Other(format!("no name for a certificate: {name}")))?,
            None => ServerName::IpAddress(address.into()),
        };
        let config = self.config(check)?;
        let connection = ClientConnection::new(config, name).map_err(|error| fault(&error))?;
        let request = http::request(&check.http);
        let reader = http::Reader::new(check.http.clone());
        let mut session =
            Session { connection, reader, begun: false, outgoing: Vec::new(), ended: false };
        // It waits within until keys are agreed on.
        session
            .connection
            .writer()
            .write_all(&request)
            .map_err(|error| Fault::Other(error.to_string()))?;
        session.collect();
        Ok(session)
    }

    fn config(&mut self, check: &HttpsCheck) -> Result<Arc<ClientConfig>, Fault> {
        let pem = check.trust.as_ref().map(|trust| &trust.pem);
        if let Some((_, config)) = self.prepared.iter().find(|(known, _)| known.as_ref() == pem) {
            return Ok(Arc::clone(config));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = verifier(&provider, pem.map(|pem| &**pem)).map_err(Fault::Other)?;
        let mut config = ClientConfig::builder_with_details(provider, Arc::clone(&self.time) as _)
            .with_safe_default_protocol_versions()
            .map_err(|error| fault(&error))?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let config = Arc::new(config);
        if self.prepared.len() == PREPARED_MAX {
            self.prepared.pop_front();
        }
        self.prepared.push_back((pem.cloned(), Arc::clone(&config)));
        Ok(config)
    }
}

/// Whether a text is a list of certificates that others can be signed by.
///
/// # Errors
/// What is wrong with it.
pub fn examine(pem: &str) -> Result<(), String> {
    roots(pem).map(|_| ())
}

/// Certificates that cannot be read are left out, as long as one can: bundles have such.
fn roots(pem: &str) -> Result<RootCertStore, String> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|error| format!("not certificates in PEM: {error}"))?;
    let mut roots = RootCertStore::empty();
    match roots.add_parsable_certificates(certificates) {
        (0, _) => Err("there is no certificate in it that can be used (PEM, X.509 v3)".to_owned()),
        _ => Ok(roots),
    }
}

fn verifier(
    provider: &Arc<CryptoProvider>,
    pem: Option<&str>,
) -> Result<Arc<dyn ServerCertVerifier>, String> {
    let Some(pem) = pem else { return Ok(Arc::new(Anybody(Arc::clone(provider)))) };
    let roots = Arc::new(roots(pem)?);
    match WebPkiServerVerifier::builder_with_provider(roots, Arc::clone(provider)).build() {
        Ok(verifier) => Ok(verifier),
        Err(error) => Err(error.to_string()),
    }
}

/// A conversation under way.
pub(super) struct Session {
    connection: ClientConnection,
    reader: http::Reader,
    begun: bool,
    /// Records that are still to be sent.
    outgoing: Vec<u8>,
    ended: bool,
}

impl Session {
    /// What is to be sent next; see [`Self::sent`].
    pub fn to_send(&self) -> &[u8] {
        &self.outgoing
    }

    /// So much of it has been sent.
    pub fn sent(&mut self, len: usize) {
        self.outgoing.drain(..len);
    }

    /// How far it has come, over a connection.
    pub fn stage(&self) -> Stage {
        if self.begun { Stage::Answering } else { Stage::Connected }
    }

    /// Takes in what came next.
    pub fn feed(&mut self, mut data: &[u8]) -> Verdict {
        self.begun |= !data.is_empty();
        while !data.is_empty() && !self.ended {
            let before = data.len();
            // From a slice it cannot fail but for a full buffer, which is emptied below.
            let read = self.connection.read_tls(&mut data).unwrap_or(0);
            let processed = self.connection.process_new_packets();
            self.collect();
            let verdict = match &processed {
                Ok(_) => self.hear(),
                Err(error) => Some(Err(fault(error))),
            };
            if verdict.is_some() {
                return verdict;
            }
            if read == 0 || before == data.len() {
                return Some(Err(Fault::Garbled("TLS")));
            }
        }
        if self.ended { Some(self.reader.end()) } else { None }
    }

    /// The connection has ended.
    pub fn end(&mut self) -> Result<(), Fault> {
        self.reader.end()
    }

    /// Reads the plain text there is.
    fn hear(&mut self) -> Verdict {
        let mut piece = [0; PIECE_LEN];
        loop {
            match self.connection.reader().read(&mut piece) {
                // The server has said that nothing more will come.
                Ok(0) => {
                    self.ended = true;
                    return None;
                }
                Ok(len) => {
                    let verdict = self.reader.feed(&piece[..len]);
                    if verdict.is_some() {
                        return verdict;
                    }
                }
                // Nothing for now.
                Err(_) => return None,
            }
        }
    }

    fn collect(&mut self) {
        while self.connection.wants_write() {
            // Into memory it cannot fail.
            if self.connection.write_tls(&mut self.outgoing).unwrap_or(0) == 0 {
                break;
            }
        }
    }
}

/// Takes any certificate, but has the server prove that it is its own.
struct Anybody(Arc<CryptoProvider>);

impl fmt::Debug for Anybody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Anybody")
    }
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn fault(error: &Error) -> Fault {
    let certificate = |what: &str| Fault::Other(format!("its certificate {what}"));
    match error {
        Error::InvalidCertificate(wrong) => match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                certificate("has expired")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                certificate("is not valid yet")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                certificate("is for another name")
            }
            CertificateError::UnknownIssuer => certificate("is not signed by anyone in `ca`"),
            other => Fault::Other(format!("its certificate will not do: {other}")),
        },
        Error::InvalidMessage(_) | Error::InappropriateMessage { .. } => Fault::Garbled("TLS"),
        Error::AlertReceived(AlertDescription::UnrecognisedName) => {
            Fault::Other("TLS alert: it does not know the server_name".to_owned())
        }
        Error::AlertReceived(alert) => Fault::Other(format!("TLS alert {}", u8::from(*alert))),
        other => Fault::Other(format!("TLS: {other}")),
    }
}
