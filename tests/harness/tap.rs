//! A tap on the uplink: ends TLS with the server's own certificate, goes on to the server with the device's own, and
//! keeps every byte that the device said before TLS. It needs the private keys of both, which only a lab has.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// Certificate chain and key of one side.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// A server certificate for `name` that a CA, whose key only a lab has, issues now.
    ///
    /// # Errors
    /// If the CA's files can't be used.
    pub fn issued(ca: &Path, ca_key: &Path, name: &str) -> Result<Self> {
        let signer = rcgen::KeyPair::from_pem(&std::fs::read_to_string(ca_key)?)?;
        let issuer = rcgen::Issuer::from_ca_cert_pem(&std::fs::read_to_string(ca)?, signer)?;
        let key = rcgen::KeyPair::generate()?;
        let mut wanted = rcgen::CertificateParams::new(vec![name.to_owned()])?;
        wanted.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = wanted.signed_by(&key, &issuer)?;
        let chain = vec![
            certificate.der().clone(),
            CertificateDer::from_pem_file(ca)?,
        ];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes())?;
        Ok(Self { chain, key })
    }

    /// Reads PEM files.
    ///
    /// # Errors
    /// If a file can't be read or holds something else.
    pub fn read(chain: &Path, key: &Path) -> Result<Self> {
        let certificates =
            CertificateDer::pem_file_iter(chain).with_context(|| format!("{}", chain.display()))?;
        Ok(Self {
            chain: certificates.collect::<Result<_, _>>()?,
            key: PrivateKeyDer::from_pem_file(key).with_context(|| format!("{}", key.display()))?,
        })
    }
}

/// What the device said.
#[derive(Clone, Debug, Default)]
pub struct Tap {
    connections: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    /// Listens in a namespace and forwards each connection to a server there.
    ///
    /// # Errors
    /// If the TLS set-up is refused.
    pub fn start(
        netns: &str,
        listen: SocketAddr,
        server: SocketAddr,
        name: &str,
        ends: [Identity; 2],
        ca: &Path,
    ) -> Result<Self> {
        let tap = Self::default();
        let [as_server, as_device] = ends;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let accept = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(as_server.chain, as_server.key)?;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(ca)?)?;
        let dial = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(as_device.chain, as_device.key)?;
        let namespace = File::open(Path::new("/run/netns").join(netns))?;
        let name = ServerName::try_from(name.to_owned())?;
        let (acceptor, connector) = (
            TlsAcceptor::from(Arc::new(accept)),
            TlsConnector::from(Arc::new(dial)),
        );
        let (keep, (listening, listens)) = (tap.clone(), std::sync::mpsc::sync_channel(1));
        std::thread::spawn(move || -> Result<()> {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async move {
                let listener = TcpListener::bind(listen).await?;
                listening.send(())?;
                loop {
                    let (device, _) = listener.accept().await?;
                    let (acceptor, connector, name, keep) = (
                        acceptor.clone(),
                        connector.clone(),
                        name.clone(),
                        keep.clone(),
                    );
                    tokio::spawn(async move {
                        keep.carry(device, server, acceptor, connector, name).await
                    });
                }
            })
        });
        listens.recv().context("the tap does not listen")?;
        Ok(tap)
    }

    async fn carry(
        &self,
        device: TcpStream,
        server: SocketAddr,
        acceptor: TlsAcceptor,
        connector: TlsConnector,
        name: ServerName<'static>,
    ) -> Result<()> {
        let (mut from_device, mut to_device) = tokio::io::split(acceptor.accept(device).await?);
        let upstream = connector
            .connect(name, TcpStream::connect(server).await?)
            .await?;
        let (mut from_server, mut to_server) = tokio::io::split(upstream);
        let number = {
            let mut connections = self.lock();
            connections.push(Vec::new());
            connections.len() - 1
        };
        let up = async {
            let mut buffer = vec![0; 64 << 10];
            loop {
                let read = from_device.read(&mut buffer).await?;
                if read == 0 {
                    return anyhow::Ok(());
                }
                self.lock()[number].extend_from_slice(&buffer[..read]);
                to_server.write_all(&buffer[..read]).await?;
                to_server.flush().await?;
            }
        };
        let down = async {
            tokio::io::copy(&mut from_server, &mut to_device)
                .await
                .map(drop)
                .map_err(anyhow::Error::from)
        };
        tokio::select! { done = up => done, done = down => done }
    }

    /// Everything the device said: the upgrade request of each connection, then its WebSocket payloads, unmasked.
    #[must_use]
    pub fn said(&self) -> Vec<u8> {
        self.lock().iter().flat_map(|bytes| plain(bytes)).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        self.connections
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Takes the masks off (RFC 6455 section 5.3); what is no whole frame stays as it is.
fn plain(bytes: &[u8]) -> Vec<u8> {
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return bytes.to_vec();
    };
    let (head, mut rest) = bytes.split_at(end + 4);
    let mut all = head.to_vec();
    while let Some((payload, after)) = frame(rest) {
        all.extend(payload);
        rest = after;
    }
    all.extend_from_slice(rest);
    all
}

fn frame(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let masked = bytes.get(1)? & 0x80 != 0;
    let (length, header) = match bytes.get(1)? & 0x7f {
        126 => (
            usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)),
            4,
        ),
        127 => (
            usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?,
            10,
        ),
        short => (usize::from(short), 2),
    };
    let mask = if masked {
        bytes.get(header..header + 4)?
    } else {
        &[0; 4]
    };
    let start = header + if masked { 4 } else { 0 };
    let payload = bytes.get(start..start.checked_add(length)?)?;
    let unmasked = payload
        .iter()
        .zip(mask.iter().cycle())
        .map(|(byte, key)| byte ^ key)
        .collect();
    Some((unmasked, &bytes[start + length..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masked_frame_is_read_and_a_torn_one_is_kept_as_it_is() {
        // RFC 6455 section 5.7: a masked "Hello".
        let hello = [
            0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58,
        ];
        let mut stream = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        stream.extend(hello);
        assert!(plain(&stream).ends_with(b"\r\n\r\nHello"));
        stream.extend(&hello[..7]);
        assert!(plain(&stream).ends_with(&hello[..7]));
    }
}
