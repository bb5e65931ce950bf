//! A Kubernetes cluster of one node: the real programs, as processes of this machine.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use serde_json::{Value, json};

use crate::docker::until;
use crate::engine::{Mounts, root};
use crate::place::{Place, Running, has, tools};
use crate::registry::Served;

/// The address of the node: a kubelet takes none of the loopback's own network.
const NODE: &str = "10.99.0.1";
/// The image in which a pod's network is, and the one that builds.
const IMAGES: [&str; 2] = ["pause", "kaniko"];

/// Pods have the machine's network: there is no other.
const NETWORK: &str = r#"pod_template={"spec":{"hostNetwork":true}}"#;

/// A cluster with folders and a registry of its own.
pub(crate) struct Cluster {
    parts: Mutex<BTreeMap<&'static str, Running>>,
    pub(crate) registry: Served,
    programs: PathBuf,
    ports: Ports,
    is_ready: bool,
    /// Whether the registry has the image of `BuildKit`.
    rootless: Mutex<bool>,
    _mounts: Mounts,
    folder: tempfile::TempDir,
}

/// Where the parts listen.
struct Ports {
    etcd: u16,
    peers: u16,
    api: u16,
    kubelet: u16,
}

/// A part of the cluster, in the order in which they start.
const PARTS: [&str; 6] = [
    "etcd",
    "containerd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
];

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_ready {
            self.tell();
        }
        // Whoever would start a container again goes first.
        self.parts().remove("kubelet");
        self.parts().clear();
        // Containers outlive all of them, below a process that names the folder.
        let folder = self.folder.path().display().to_string();
        let _ = Command::new("pkill")
            .args(["-KILL", "-f", &folder])
            .status();
        for group in control_groups(&self.group()) {
            kill_all(&group);
        }
    }
}

/// A control group in each hierarchy of this machine, or in the one that it has.
fn control_groups(name: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return vec![root.join(name)];
    }
    let hierarchies = fs_err::read_dir(root).into_iter().flatten().flatten();
    let hierarchies =
        hierarchies.filter(|entry| entry.path().is_dir() && !entry.path().is_symlink());
    hierarchies.map(|entry| entry.path().join(name)).collect()
}

/// Kills what is in a control group, and removes it.
fn kill_all(group: &Path) {
    for inner in fs_err::read_dir(group).into_iter().flatten().flatten() {
        if inner.path().is_dir() {
            kill_all(&inner.path());
        }
    }
    let processes = fs_err::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for process in processes.lines() {
        let _ = Command::new("kill").args(["-KILL", process]).status();
    }
    let _ = fs_err::remove_dir(group);
}

impl Cluster {
    /// The cluster that the tests share, if this machine has what it takes.
    pub(crate) fn shared() -> Option<Arc<Self>> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cluster) = shared.upgrade() {
            return Some(cluster);
        }
        let cluster = Arc::new(Self::start()?);
        *shared = Arc::downgrade(&cluster);
        Some(cluster)
    }

    /// A cluster of a test's own.
    pub(crate) fn start() -> Option<Self> {
        let needed = [
            "etcd",
            "containerd",
            "runc",
            "docker-registry",
            "umoci",
            "skopeo",
            "busybox",
            "ip",
        ];
        if !needed.into_iter().all(has) || !root() {
            return None;
        }
        let folders = tools("IMAGESPEC_TEST_KUBERNETES")?;
        let folder = tempfile::tempdir().expect("a folder");
        let free = || {
            let free = TcpListener::bind("127.0.0.1:0").expect("a port");
            free.local_addr().expect("an address").port()
        };
        let mut cluster = Self {
            parts: Mutex::default(),
            registry: Served::new(&[]),
            programs: folders[0].clone(),
            ports: Ports {
                etcd: free(),
                peers: free(),
                api: free(),
                kubelet: free(),
            },
            is_ready: false,
            rootless: Mutex::default(),
            _mounts: Mounts(folder.path().to_owned()),
            folder,
        };
        // It may have it from before.
        let _ = Command::new("ip")
            .args(["address", "add", &format!("{NODE}/32"), "dev", "lo"])
            .output();
        cluster.push_images(&folders[1]);
        cluster.certify();
        cluster.configure();
        cluster.make_groups();
        for part in PARTS {
            cluster.begin(part);
            match part {
                "containerd" => until("containerd listens", || {
                    cluster.path("containerd.sock").exists()
                }),
                "kube-apiserver" => cluster.until_it_answers(),
                _ => {}
            }
        }
        until("the node is ready", || {
            let nodes = cluster.kubectl(&["get", "nodes"]);
            String::from_utf8_lossy(&nodes.stdout).contains(" Ready ")
        });
        cluster.is_ready = true;
        Some(cluster)
    }

    /// The control group of its own: a kubelet kills what it does not know in another's.
    fn group(&self) -> String {
        let name = self.folder.path().file_name().expect("a name");
        format!("imagespec{}", name.to_string_lossy())
    }

    fn make_groups(&self) {
        for group in control_groups(&self.group()) {
            fs_err::create_dir(&group).expect("a control group");
            // A group of processors begins with none.
            for part in ["cpuset.cpus", "cpuset.mems"] {
                let above = group.parent().expect("a hierarchy").join(part);
                if let Ok(all) = fs_err::read_to_string(above) {
                    fs_err::write(group.join(part), all).expect("written");
                }
            }
        }
    }

    /// Says what the parts said last.
    fn tell(&self) {
        let mut out = std::io::stderr();
        for part in PARTS {
            let log = fs_err::read_to_string(self.path(&format!("{part}.log"))).unwrap_or_default();
            let mut last: Vec<_> = log.lines().rev().take(12).collect();
            last.reverse();
            // There is nobody else to tell.
            let _ = writeln!(out, "== {part}\n{}", last.join("\n"));
        }
    }

    fn parts(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, Running>> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Kills a part.
    pub(crate) fn kill(&self, part: &str) {
        self.parts().remove(part).expect("a part");
    }

    /// Starts a part.
    pub(crate) fn begin(&self, part: &'static str) {
        let log = fs_err::File::options()
            .create(true)
            .append(true)
            .open(self.path(&format!("{part}.log")));
        let log = log.expect("a file").into_parts().0;
        let own = self.programs.join(part);
        let mut command = Command::new(if own.is_file() { own } else { part.into() });
        command.args(self.flags(part));
        command.stdout(Stdio::null()).stderr(log);
        let running = Running(command.spawn().expect(part));
        self.parts().insert(part, running);
    }

    pub(crate) fn until_it_answers(&self) {
        until("the cluster answers", || {
            self.kubectl(&["get", "--raw", "/readyz"]).status.success()
        });
    }

    fn flags(&self, part: &str) -> Vec<String> {
        let Ports {
            etcd, peers, api, ..
        } = self.ports;
        let pki = |name: &str| self.text(&format!("pki/{name}"));
        let kubeconfig = || format!("--kubeconfig={}", self.text(&format!("{part}.kubeconfig")));
        match part {
            "etcd" => vec![
                format!("--data-dir={}", self.text("etcd")),
                format!("--listen-client-urls=http://127.0.0.1:{etcd}"),
                format!("--advertise-client-urls=http://127.0.0.1:{etcd}"),
                format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
                format!("--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
                format!("--initial-cluster=default=http://127.0.0.1:{peers}"),
                "--unsafe-no-fsync".to_owned(),
            ],
            "containerd" => vec!["--config".to_owned(), self.text("containerd.toml")],
            "kube-apiserver" => vec![
                format!("--etcd-servers=http://127.0.0.1:{etcd}"),
                "--bind-address=127.0.0.1".to_owned(),
                format!("--advertise-address={NODE}"),
                format!("--secure-port={api}"),
                "--service-cluster-ip-range=10.96.0.0/24".to_owned(),
                format!("--client-ca-file={}", pki("ca.crt")),
                format!("--tls-cert-file={}", pki("kube-apiserver.crt")),
                format!("--tls-private-key-file={}", pki("kube-apiserver.key")),
                format!("--kubelet-client-certificate={}", pki("admin.crt")),
                format!("--kubelet-client-key={}", pki("admin.key")),
                format!("--service-account-key-file={}", pki("ca.pub")),
                format!("--service-account-signing-key-file={}", pki("ca.key")),
                "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                "--authorization-mode=Node,RBAC".to_owned(),
                "--anonymous-auth=false".to_owned(),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
                "--kubelet-preferred-address-types=InternalIP".to_owned(),
            ],
            "kube-controller-manager" => vec![
                kubeconfig(),
                "--leader-elect=false".to_owned(),
                format!("--service-account-private-key-file={}", pki("ca.key")),
                format!("--root-ca-file={}", pki("ca.crt")),
                "--use-service-account-credentials=true".to_owned(),
                "--secure-port=0".to_owned(),
            ],
            "kube-scheduler" => vec![
                kubeconfig(),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
            ],
            "kubelet" => vec![
                kubeconfig(),
                format!("--config={}", self.text("kubelet.json")),
                format!("--root-dir={}", self.text("kubelet")),
                format!("--cert-dir={}", self.text("kubelet-pki")),
                "--hostname-override=node".to_owned(),
                format!("--node-ip={NODE}"),
            ],
            part => panic!("no such part: {part}"),
        }
    }

    /// Writes an authority, and what it says of the parts.
    fn certify(&self) {
        use rcgen::{
            BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
        };
        let write = |name: &str, text: &str| {
            let path = self.path("pki").join(name);
            fs_err::create_dir_all(self.path("pki")).expect("a folder");
            fs_err::write(path, text).expect("a file");
        };
        let authority = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters
            .distinguished_name
            .push(DnType::CommonName, "an authority");
        let certificate = parameters.self_signed(&authority).expect("an authority");
        write("ca.crt", &certificate.pem());
        write("ca.key", &authority.serialize_pem());
        write("ca.pub", &authority.public_key_pem());
        let issuer = rcgen::Issuer::new(parameters, authority);
        for (name, user, group) in [
            ("kube-apiserver", "kube-apiserver", ""),
            ("admin", "admin", "system:masters"),
            (
                "kube-controller-manager",
                "system:kube-controller-manager",
                "",
            ),
            ("kube-scheduler", "system:kube-scheduler", ""),
            ("kubelet", "system:node:node", "system:nodes"),
        ] {
            let pair = KeyPair::generate().expect("a key");
            let names = ["127.0.0.1", NODE, "10.96.0.1", "node"].map(str::to_owned);
            let mut parameters = CertificateParams::new(names).expect("parameters");
            parameters.distinguished_name.push(DnType::CommonName, user);
            if !group.is_empty() {
                parameters
                    .distinguished_name
                    .push(DnType::OrganizationName, group);
            }
            parameters.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ];
            let signed = parameters.signed_by(&pair, &issuer).expect("a certificate");
            write(&format!("{name}.crt"), &signed.pem());
            write(&format!("{name}.key"), &pair.serialize_pem());
            let user = json!({
                "client-certificate": self.text(&format!("pki/{name}.crt")),
                "client-key": self.text(&format!("pki/{name}.key")),
            });
            self.write_kubeconfig(name, &user);
        }
    }

    fn write_kubeconfig(&self, name: &str, user: &Value) {
        let server = format!("https://127.0.0.1:{}", self.ports.api);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{ "name": "test", "cluster": {
                "server": server, "certificate-authority": self.text("pki/ca.crt"),
            } }],
            "users": [{ "name": name, "user": user }],
            "contexts": [{ "name": "test", "context": { "cluster": "test", "user": name } }],
            "current-context": "test",
        });
        let path = self.path(&format!("{name}.kubeconfig"));
        fs_err::write(path, config.to_string()).expect("a file");
    }

    fn configure(&self) {
        let text = |name: &str| self.text(name);
        let images = &self.registry.address;
        let containerd = format!(
            r#"version = 2
root = "{root}"
state = "{state}"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
sandbox_image = "{images}/pause:1"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{cni}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#,
            root = text("containerd/root"),
            state = text("containerd/state"),
            socket = text("containerd.sock"),
            cni = text("cni"),
        );
        let network = json!({
            "cniVersion": "1.0.0", "name": "test",
            "plugins": [{ "type": "ptp", "ipam": {
                "type": "host-local", "dataDir": text("addresses"),
                "ranges": [[{ "subnet": "10.99.1.0/24" }]],
                "routes": [{ "dst": "0.0.0.0/0" }],
            } }],
        });
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupRoot": format!("/{}", self.group()), "oomScoreAdj": 0, "failSwapOn": false,
            "makeIPTablesUtilChains": false, "syncFrequency": "1s",
            "authentication": {
                "x509": { "clientCAFile": text("pki/ca.crt") },
                "webhook": { "enabled": true }, "anonymous": { "enabled": false },
            },
            "authorization": { "mode": "Webhook" },
            "containerRuntimeEndpoint": format!("unix://{}", text("containerd.sock")),
            "podLogsDir": text("logs"), "volumePluginDir": text("plugins"),
            "address": NODE, "port": self.ports.kubelet, "healthzPort": 0, "readOnlyPort": 0,
            "tlsCertFile": text("pki/kubelet.crt"), "tlsPrivateKeyFile": text("pki/kubelet.key"),
            "evictionHard": { "nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "50Mi" },
        });
        fs_err::create_dir_all(self.path("cni")).expect("a folder");
        for (name, content) in [
            ("containerd.toml", containerd),
            ("cni/10-test.conflist", network.to_string()),
            ("kubelet.json", kubelet.to_string()),
        ] {
            fs_err::write(self.path(name), content).expect("a file");
        }
    }

    /// Makes the images that the cluster starts from, and pushes them.
    fn push_images(&self, kaniko: &Path) {
        let layout = self.path("images");
        let umoci = |arguments: &[&str]| {
            let output = Command::new("umoci")
                .args(arguments)
                .output()
                .expect("umoci");
            assert!(output.status.success(), "{arguments:?}: {output:?}");
        };
        let at = layout.display().to_string();
        umoci(&["init", "--layout", &at]);
        let trust = self.path("ssl/certs");
        fs_err::create_dir_all(&trust).expect("a folder");
        let authorities = "/etc/ssl/certs/ca-certificates.crt";
        fs_err::copy(authorities, trust.join("ca-certificates.crt")).expect("authorities");
        for image in IMAGES {
            let named = format!("{at}:{image}");
            umoci(&["new", "--image", &named]);
            let insert = |from: &Path, to: &str| {
                let from = from.display().to_string();
                umoci(&["insert", "--rootless", "--image", &named, &from, to]);
            };
            let configure = |flags: &[&str]| {
                umoci(&[&["config", "--image", &named, "--os", "linux"], flags].concat());
            };
            if image == "pause" {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let mut busybox = std::env::split_paths(&path).map(|folder| folder.join("busybox"));
                insert(
                    &busybox.find(|path| path.is_file()).expect("busybox"),
                    "/busybox",
                );
                let forever = ["--config.cmd", "sleep", "--config.cmd", "2147483647"];
                configure(&[&["--config.entrypoint", "/busybox"], &forever[..]].concat());
            } else {
                insert(&kaniko.join("executor"), "/kaniko/executor");
                insert(&self.path("ssl"), "/kaniko/ssl");
                configure(&[
                    "--config.entrypoint",
                    "/kaniko/executor",
                    "--config.workingdir",
                    "/workspace",
                    "--config.env",
                    "HOME=/root",
                    "--config.env",
                    "USER=root",
                    "--config.env",
                    "PATH=/usr/local/bin:/kaniko",
                    "--config.env",
                    "SSL_CERT_DIR=/kaniko/ssl/certs",
                    "--config.env",
                    "DOCKER_CONFIG=/kaniko/.docker/",
                ]);
            }
            let to = format!("docker://{}/{image}:1", self.registry.address);
            let copied = Command::new("skopeo")
                .args([
                    "copy",
                    "--quiet",
                    "--dest-tls-verify=false",
                    &format!("oci:{named}"),
                    &to,
                ])
                .output()
                .expect("skopeo");
            assert!(copied.status.success(), "{copied:?}");
        }
    }

    /// What `kubectl` answers to whoever may do everything.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Output {
        Command::new(self.programs.join("kubectl"))
            .arg("--kubeconfig")
            .arg(self.path("admin.kubeconfig"))
            .args(arguments)
            .output()
            .expect("kubectl")
    }

    pub(crate) fn says(&self, arguments: &[&str]) -> String {
        let output = self.kubectl(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("a text")
    }

    /// Applies a manifest.
    pub(crate) fn apply(&self, manifest: &Value) {
        let mut child = Command::new(self.programs.join("kubectl"))
            .arg("--kubeconfig")
            .arg(self.path("admin.kubeconfig"))
            .args(["apply", "--server-side", "--filename", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("kubectl");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(manifest.to_string().as_bytes())
            .expect("written");
        drop(stdin);
        assert!(child.wait().expect("kubectl").success(), "{manifest}");
    }

    /// Makes a namespace.
    pub(crate) fn namespace(&self, name: &str, labels: &Value) {
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": labels },
        }));
        until("the namespace has an account", || {
            self.kubectl(&["get", "serviceaccount", "default", "--namespace", name])
                .status
                .success()
        });
    }

    /// A kubeconfig of an account that may do in a namespace what these rules say.
    pub(crate) fn account(&self, namespace: &str, rules: &Value) -> PathBuf {
        let metadata = json!({ "name": "builder", "namespace": namespace });
        let group = "rbac.authorization.k8s.io";
        let version = format!("{group}/v1");
        self.apply(&json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata }));
        self.apply(
            &json!({ "apiVersion": version, "kind": "Role", "metadata": metadata, "rules": rules }),
        );
        self.apply(&json!({
            "apiVersion": version, "kind": "RoleBinding", "metadata": metadata,
            "roleRef": { "apiGroup": group, "kind": "Role", "name": "builder" },
            "subjects": [{ "kind": "ServiceAccount", "name": "builder", "namespace": namespace }],
        }));
        let token = self.says(&["create", "token", "builder", "--namespace", namespace]);
        let name = format!("builder-{namespace}");
        self.write_kubeconfig(&name, &json!({ "token": token.trim() }));
        self.path(&format!("{name}.kubeconfig"))
    }

    /// What is left in a namespace of a build.
    pub(crate) fn left(&self, namespace: &str) -> Vec<String> {
        let all = self.says(&[
            "get",
            "jobs,pods,secrets,configmaps",
            "--output",
            "name",
            "--namespace",
            namespace,
        ]);
        all.lines()
            .filter(|name| !name.ends_with("/kube-root-ca.crt"))
            .map(str::to_owned)
            .collect()
    }

    /// Options with which any project is built in this cluster.
    pub(crate) fn options(&self) -> [String; 2] {
        let image = format!("image={}/kaniko:1", self.registry.address);
        [image, NETWORK.to_owned()]
    }

    /// As [`Self::options`], for `BuildKit` without root, whose image is made when it is first asked for; without its
    /// programs there is none.
    pub(crate) fn rootless_options(&self) -> Option<[String; 3]> {
        let folders = tools("IMAGESPEC_TEST_BUILDKIT")?;
        let mut made = self.rootless.lock().unwrap_or_else(PoisonError::into_inner);
        if !*made {
            self.push_rootless(&folders[0]);
            *made = true;
        }
        let image = format!("image={}/buildkit:1", self.registry.address);
        Some(["executor=buildkit".to_owned(), image, NETWORK.to_owned()])
    }

    /// Makes an image as `BuildKit` has one for whoever is not root, of Debian's packages. Debian's programs of the setuid
    /// kind map no ids with a pod's capabilities; with capabilities of their own, they do.
    fn push_rootless(&self, programs: &Path) {
        let place = Place::new(
            "[images.buildkit]\napt_packages = [\"libcap2-bin\", \"rootlesskit\", \"runc\", \"uidmap\"]\ncopy = [\"bin\"]\n\
             commands = [\"install -m 755 bin/* /usr/local/bin; rm -r bin\",\
             \"echo flytekit:100000:65536 | tee /etc/subuid > /etc/subgid\",\
             \"cd /usr/bin; chmod u-s newuidmap newgidmap; setcap cap_setuid=ep newuidmap; setcap cap_setgid=ep newgidmap\"]\n",
        );
        for name in ["buildkitd", "buildctl"] {
            place.write(&format!("bin/{name}"), "");
            let to = place.path("project/bin").join(name);
            fs_err::copy(programs.join(name), to).expect("a program");
        }
        let arguments = ["--builder", "native", "--no-bytecode", "--tag", "1"];
        place.builds(&[&arguments[..], &["--registry", &self.registry.address]].concat());
    }

    /// As [`Self::options`], for our own executor.
    pub(crate) fn own_options() -> [String; 2] {
        ["executor=native".to_owned(), NETWORK.to_owned()]
    }

    /// Where the cluster answers: host and port.
    pub(crate) fn endpoint(&self) -> (String, String) {
        ("127.0.0.1".to_owned(), self.ports.api.to_string())
    }

    /// The kubeconfig of whoever may do everything.
    pub(crate) fn kubeconfig(&self) -> String {
        self.text("admin.kubeconfig")
    }

    /// A project whose builds go to a namespace of this cluster, with further options of the builder, as TOML.
    pub(crate) fn place(&self, images: &str, namespace: &str, options: &str) -> Place {
        let registry = &self.registry.address;
        let image = if options.contains("executor") {
            String::new()
        } else {
            format!("image = \"{registry}/kaniko:1\"\n")
        };
        let mut place = Place::new(&format!(
            "{images}\n[deployments.cluster]\nregistry = \"{registry}/{namespace}\"\nbuilder = \"kaniko\"\n\
             [deployments.cluster.builders.kaniko]\n{image}namespace = \"{namespace}\"\n\
             {options}\npod_template.spec.hostNetwork = true\n"
        ));
        place.set("KUBECONFIG", &self.kubeconfig());
        place.set("IMAGESPEC_DEPLOYMENT", "cluster");
        place
    }
}
