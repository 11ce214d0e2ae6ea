//! Played virtual machines that are given disks and asked to let them go, as QEMU and cloud-hypervisor are (rule A09).

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex};

use super::{Value, json};

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Refused,
    /// The machine hangs at it, and then has done it or not.
    Hangs(bool),
    /// The machine dies of it.
    Dies,
    /// The connection breaks, and the machine hangs; it has done it or not.
    Breaks(bool),
}

#[derive(Default)]
pub struct Inside {
    pub version: (u16, u16),
    pub nodes: Vec<Value>,
    pub chardevs: Vec<String>,
    /// Each with its bus.
    pub devices: Vec<(String, Option<String>)>,
    pub ports: Vec<String>,
    /// What has been asked for, with its arguments.
    pub asked: Vec<(String, Value)>,
    pub deaf_guest: bool,
    /// At the next command of this name.
    pub fault: Option<(String, Fault)>,
    hangs: bool,
    dead: bool,
}

impl Inside {
    pub fn has_nothing(&self) -> bool {
        self.chardevs.is_empty() && self.devices.is_empty()
    }
}

/// The machine itself, which the test and its thread share.
#[derive(Clone)]
pub struct Machine(Arc<(Mutex<Inside>, Condvar)>);

impl Machine {
    /// One that has these ports.
    pub fn qemu(socket: &str, version: (u16, u16), ports: &[&str]) -> Self {
        let inside = Inside {
            version,
            ports: ports.iter().map(|port| (*port).to_owned()).collect(),
            ..Inside::default()
        };
        Self::start(socket, inside, Self::serve_qmp)
    }

    pub fn cloud_hypervisor(socket: &str) -> Self {
        Self::start(socket, Inside::default(), Self::serve_api)
    }

    fn start(socket: &str, inside: Inside, serve: fn(&Self, UnixStream) -> Option<()>) -> Self {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let machine = Machine(Arc::new((Mutex::new(inside), Condvar::new())));
        let served = machine.clone();
        // One client at a time.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                served.wait();
                serve(&served, stream);
                if served.look(|inside| inside.dead) {
                    return;
                }
            }
        });
        machine
    }

    pub fn look<T>(&self, look: impl FnOnce(&mut Inside) -> T) -> T {
        look(&mut self.0.0.lock().unwrap())
    }

    /// The names of what was asked for that changes it.
    pub fn changes(&self) -> Vec<String> {
        let changes = [
            "chardev-add",
            "device_add",
            "device_del",
            "chardev-remove",
            "vm.add-disk",
            "vm.remove-device",
        ];
        self.look(|inside| {
            let asked = inside.asked.iter().map(|(name, _)| name.clone());
            asked.filter(|name| changes.contains(&name.as_str())).collect()
        })
    }

    pub fn fail_at(&self, command: &str, fault: Fault) {
        self.look(|inside| inside.fault = Some((command.to_owned(), fault)));
    }

    pub fn hangs(&self) -> bool {
        self.look(|inside| inside.hangs)
    }

    pub fn go_on(&self) {
        self.look(|inside| inside.hangs = false);
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let inside = self.0.0.lock().unwrap();
        drop(self.0.1.wait_while(inside, |inside| inside.hangs).unwrap());
    }

    /// What it answers, or says no with; nothing if the connection ends here.
    fn obey(
        &self,
        command: &str,
        arguments: Value,
        act: impl Fn(&mut Inside, &Value) -> Result<Value, String>,
    ) -> Option<Result<Value, String>> {
        let fault = self.look(|inside| {
            inside.asked.push((command.to_owned(), arguments.clone()));
            let fault = inside.fault.take_if(|(name, _)| name == command);
            fault.map(|(_, fault)| fault)
        });
        let act = || self.look(|inside| act(inside, &arguments));
        match fault {
            None => Some(act()),
            Some(Fault::Refused) => Some(Err("it does not want to".to_owned())),
            Some(Fault::Dies) => {
                self.look(|inside| inside.dead = true);
                None
            }
            Some(Fault::Hangs(done)) => {
                self.look(|inside| inside.hangs = true);
                self.wait();
                done.then(act)
            }
            Some(Fault::Breaks(done)) => {
                self.look(|inside| inside.hangs = true);
                if done {
                    let _ = act();
                }
                None
            }
        }
    }

    fn serve_qmp(&self, mut stream: UnixStream) -> Option<()> {
        let lines = BufReader::new(stream.try_clone().ok()?).lines();
        let greeting = b"{\"QMP\": {\"version\": {}, \"capabilities\": []}}\r\n";
        stream.write_all(greeting).ok()?;
        for line in lines.map_while(Result::ok) {
            let Ok(command) = serde_json::from_str::<Value>(&line) else {
                // Of a client that took it for another kind of machine, since it was slow to speak.
                stream
                    .write_all(b"{\"error\": {\"desc\": \"Invalid JSON syntax\"}}\r\n")
                    .ok()?;
                continue;
            };
            let name = command["execute"].as_str().unwrap();
            let arguments = command["arguments"].clone();
            let answer = match self.obey(name, arguments, |inside, arguments| qmp(inside, name, arguments))? {
                Ok(answer) => json!({"return": answer}),
                Err(words) => json!({"error": {"class": "GenericError", "desc": words}}),
            };
            // Events come between.
            let event = json!({"event": "DEVICE_DELETED", "data": {}, "timestamp": {}});
            stream
                .write_all(format!("{event}\r\n{answer}\r\n").as_bytes())
                .ok()?;
        }
        None
    }

    fn serve_api(&self, mut stream: UnixStream) -> Option<()> {
        let mut input = BufReader::new(stream.try_clone().ok()?);
        loop {
            let mut line = String::new();
            input.read_line(&mut line).ok().filter(|read| *read > 0)?;
            let name = line.split(' ').nth(1)?.strip_prefix("/api/v1/")?.to_owned();
            let mut length = 0;
            while line.trim() != "" {
                line.clear();
                input.read_line(&mut line).ok()?;
                if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
                    length = text.trim().parse().unwrap();
                }
            }
            let mut body = vec![0; length];
            input.read_exact(&mut body).ok()?;
            let arguments = serde_json::from_slice(&body).unwrap_or_default();
            let (status, body) = match self.obey(&name, arguments, |inside, arguments| {
                api(inside, &name, arguments)
            })? {
                Ok(answer) => ("200 OK", answer.to_string()),
                Err(words) => ("500 Internal Server Error", json!([words]).to_string()),
            };
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all((head + &body).as_bytes()).ok()?;
        }
    }
}

fn text<'a>(arguments: &'a Value, name: &str) -> &'a str {
    arguments[name].as_str().unwrap()
}

fn qmp(inside: &mut Inside, name: &str, arguments: &Value) -> Result<Value, String> {
    let listed = |name: &str, kind: &str| json!({"name": name, "type": kind});
    Ok(match name {
        "qmp_capabilities" => json!({}),
        "query-version" => {
            json!({"qemu": {"major": inside.version.0, "minor": inside.version.1, "micro": 1}})
        }
        "query-named-block-nodes" => json!(inside.nodes),
        "query-chardev" => {
            let chardev = |id: &String| json!({"label": id, "filename": "", "frontend-open": true});
            inside.chardevs.iter().map(chardev).collect()
        }
        "qom-get" => json!(!text(arguments, "path").contains("fixed")),
        "qom-list" if arguments["path"] == "/machine/peripheral" => {
            let ports = inside
                .ports
                .iter()
                .map(|port| listed(port, "child<pcie-root-port>"));
            let devices = inside
                .devices
                .iter()
                .map(|(id, _)| listed(id, "child<vhost-user-blk-pci>"));
            ports.chain(devices).chain([listed("type", "string")]).collect()
        }
        "qom-list" => {
            let port = text(arguments, "path").rsplit('/').next().unwrap();
            let is_here = |(_, bus): &&(String, Option<String>)| bus.as_deref() == Some(port);
            let here = inside.devices.iter().filter(is_here);
            here.map(|_| listed("child[0]", "link<vhost-user-blk-pci>"))
                .collect()
        }
        "chardev-add" => {
            inside.chardevs.push(text(arguments, "id").to_owned());
            json!({})
        }
        "chardev-remove" => {
            let id = text(arguments, "id");
            if inside.devices.iter().any(|(device, _)| device == id) {
                return Err(format!("Chardev '{id}' is busy"));
            }
            inside.chardevs.retain(|chardev| chardev != id);
            json!({})
        }
        "device_add" => {
            assert!(
                inside
                    .chardevs
                    .iter()
                    .any(|chardev| chardev == text(arguments, "chardev"))
            );
            let bus = arguments["bus"].as_str().map(str::to_owned);
            inside.devices.push((text(arguments, "id").to_owned(), bus));
            json!({})
        }
        "device_del" => {
            let id = text(arguments, "id");
            if !inside.devices.iter().any(|(device, _)| device == id) {
                return Err(format!("Device '{id}' not found"));
            }
            if !inside.deaf_guest {
                inside.devices.retain(|(device, _)| device != id);
            }
            json!({})
        }
        other => panic!("{other}"),
    })
}

fn api(inside: &mut Inside, name: &str, arguments: &Value) -> Result<Value, String> {
    Ok(match name {
        "vm.info" => {
            let disks = inside
                .devices
                .iter()
                .map(|(id, _)| json!({"id": id, "path": null, "vhost_user": true}));
            let disks: Vec<_> = disks.collect();
            let tree: serde_json::Map<_, _> = inside
                .devices
                .iter()
                .map(|(id, _)| (id.clone(), json!({"id": id})))
                .collect();
            // What goes is not in the configuration any more.
            let disks = if inside.deaf_guest { Vec::new() } else { disks };
            let config = json!({"disks": disks, "pmem": null});
            json!({"config": config, "state": "Running", "memory_actual_size": 1, "device_tree": tree})
        }
        "vm.add-disk" => {
            inside.devices.push((text(arguments, "id").to_owned(), None));
            json!({"id": arguments["id"], "bdf": "0000:00:06.0"})
        }
        "vm.remove-device" => {
            if !inside.deaf_guest {
                inside
                    .devices
                    .retain(|(device, _)| device != text(arguments, "id"));
            }
            json!({})
        }
        other => panic!("{other}"),
    })
}
