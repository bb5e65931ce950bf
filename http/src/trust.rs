//! Whom TLS trusts, and as whom it presents itself. Trusted are the system's authorities and those that are named, read
//! when the first server has to be verified: a registry of this machine over plain HTTP costs no look at some hundred
//! certificates.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use rustls_platform_verifier::Verifier;

use crate::error::HttpError;

/// The authorities that a client trusts. Clones share what they have read.
#[derive(Debug, Clone)]
pub(crate) struct Trust {
    authorities: Arc<Authorities>,
    identity: Option<Identity>,
}

/// As whom a client presents itself where a server asks.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    certificates: Vec<CertificateDer<'static>>,
    key: Arc<PrivateKeyDer<'static>>,
}

impl Identity {
    /// That of a certificate, with those that stand above it, and its key.
    pub(crate) fn new(certificates: &[u8], key: &[u8]) -> Result<Self, HttpError> {
        let certificates: Vec<_> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(HttpError::setup)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(HttpError::setup)?;
        Ok(Self {
            certificates,
            key: Arc::new(key),
        })
    }
}

#[derive(Debug)]
struct Authorities {
    named: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
    all: OnceLock<Result<Verifier, Error>>,
}

impl Trust {
    /// Trusts the system's authorities and those of `pem`, if any, which must be sound.
    pub(crate) fn new(pem: Option<&[u8]>, identity: Option<Identity>) -> Result<Self, HttpError> {
        let named: Vec<_> = CertificateDer::pem_slice_iter(pem.unwrap_or_default())
            .collect::<Result<_, _>>()
            .map_err(HttpError::setup)?;
        let mut sound = RootCertStore::empty();
        for authority in &named {
            sound.add(authority.clone()).map_err(HttpError::setup)?;
        }
        Ok(Self {
            authorities: Arc::new(Authorities {
                named,
                provider: Arc::new(ring::default_provider()),
                all: OnceLock::new(),
            }),
            identity,
        })
    }

    /// The settings of TLS that a client is made with.
    pub(crate) fn config(&self) -> Result<ClientConfig, HttpError> {
        let builder = ClientConfig::builder_with_provider(self.authorities.provider.clone());
        let builder = builder
            .with_safe_default_protocol_versions()
            .map_err(HttpError::setup)?
            .dangerous()
            .with_custom_certificate_verifier(self.authorities.clone());
        let mut config = match &self.identity {
            Some(Identity { certificates, key }) => builder
                .with_client_auth_cert(certificates.clone(), key.clone_key())
                .map_err(HttpError::setup)?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

impl Authorities {
    fn all(&self) -> Result<&Verifier, Error> {
        let read = || Verifier::new_with_extra_roots(self.named.clone(), self.provider.clone());
        self.all.get_or_init(read).as_ref().map_err(Clone::clone)
    }
}

impl ServerCertVerifier for Authorities {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let all = self.all()?;
        all.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}
