//! Which of several wheels suits an interpreter best (platform compatibility tags, packaging.python.org).

use std::fmt;

use imagespec_core::platform::Platform;
use pep508_rs::{MarkerEnvironment, MarkerEnvironmentBuilder};
use serde::{Deserialize, Serialize};

/// Minor versions of glibc 2 that uv knows platforms of.
const LEVELS: [u32; 12] = [17, 28, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40];

/// A C library, with its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Libc {
    /// GNU's.
    Glibc(u32, u32),
    /// musl.
    Musl(u32, u32),
}

impl fmt::Display for Libc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glibc(major, minor) => write!(f, "glibc {major}.{minor}"),
            Self::Musl(major, minor) => write!(f, "musl {major}.{minor}"),
        }
    }
}

/// The interpreter and the C library that wheels are chosen for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Minor version of Python 3: 11.
    pub python: u32,
    /// The platform.
    pub platform: Platform,
    /// The C library.
    pub libc: Libc,
}

impl Target {
    /// The architecture as wheels and uv name it.
    pub fn architecture(&self) -> &str {
        match self.platform.architecture.as_str() {
            "amd64" => "x86_64",
            "arm64" => "aarch64",
            "386" => "i686",
            "arm" => "armv7l",
            other => other,
        }
    }

    /// What uv calls the platform, or the nearest it knows that promises no more than the base has. Of musl it knows
    /// one, with 1.2; that a wheel fits is for [`Target::rank`] to say.
    pub fn uv_platform(&self) -> String {
        let (major, minor) = match (self.architecture(), self.libc) {
            ("riscv64", _) => return "riscv64-unknown-linux".to_owned(),
            (architecture, Libc::Musl(..)) => return format!("{architecture}-unknown-linux-musl"),
            (_, Libc::Glibc(major, minor)) => (major, minor),
        };
        let fits = |level: &&u32| major > 2 || **level <= minor;
        let level = LEVELS.iter().rev().find(fits).unwrap_or(&LEVELS[0]);
        format!("{}-manylinux_2_{level}", self.architecture())
    }

    /// The environment that markers are evaluated in (dependency specifiers, packaging.python.org).
    pub(super) fn markers(&self) -> MarkerEnvironment {
        let full = format!("3.{}.0", self.python);
        let environment = MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
            implementation_name: "cpython",
            implementation_version: &full,
            os_name: "posix",
            platform_machine: self.architecture(),
            platform_python_implementation: "CPython",
            platform_release: "",
            platform_system: "Linux",
            platform_version: "",
            python_full_version: &full,
            python_version: &format!("3.{}", self.python),
            sys_platform: "linux",
        });
        environment.expect("numbers and dots are a version")
    }

    /// How well a wheel suits, by its file name; `None` if it does not. Higher is better.
    pub fn rank(&self, filename: &str) -> Option<(u32, u32, u32)> {
        if filename.contains(['/', '\\', '\0']) {
            return None;
        }
        let parts: Vec<_> = filename.strip_suffix(".whl")?.split('-').collect();
        let (build, [python, abi, platform]) = match parts[..] {
            [_, _, python, abi, platform] => ("", [python, abi, platform]),
            [_, _, build, python, abi, platform] => (build, [python, abi, platform]),
            _ => return None,
        };
        let mut best = None;
        for python in python.split('.') {
            for abi in abi.split('.') {
                let interpreter = self.interpreter(python, abi);
                let platform = platform
                    .split('.')
                    .filter_map(|platform| self.machine(platform))
                    .max();
                best = best.max(interpreter.zip(platform));
            }
        }
        let digits: String = build.chars().take_while(char::is_ascii_digit).collect();
        best.map(|(interpreter, platform)| (interpreter, platform, digits.parse().unwrap_or(0)))
    }

    fn interpreter(&self, python: &str, abi: &str) -> Option<u32> {
        let minor = |prefix: &str| python.strip_prefix(prefix)?.parse::<u32>().ok();
        let own = format!("cp3{}", self.python);
        match (minor("cp3"), abi) {
            (Some(minor), abi) if minor == self.python && abi == own => return Some(4000),
            (Some(minor), "abi3") if minor <= self.python => return Some(3000 + minor),
            (Some(minor), "none") if minor == self.python => return Some(2500),
            _ => {}
        }
        match (python, minor("py3")) {
            (_, Some(minor)) if abi == "none" && minor == self.python => Some(2000),
            ("py3", _) if abi == "none" => Some(1500),
            (_, Some(minor)) if abi == "none" && minor <= self.python => Some(1000 + minor),
            _ => None,
        }
    }

    fn machine(&self, platform: &str) -> Option<u32> {
        if platform == "any" {
            return Some(0);
        }
        let rest = platform
            .strip_suffix(self.architecture())?
            .strip_suffix('_')?;
        if rest == "linux" {
            return Some(1);
        }
        let (prefix, (major, minor)) = match self.libc {
            Libc::Glibc(major, minor) => ("manylinux_", (major, minor)),
            Libc::Musl(major, minor) => ("musllinux_", (major, minor)),
        };
        let rest = match rest {
            "manylinux1" => "manylinux_2_5",
            "manylinux2010" => "manylinux_2_12",
            "manylinux2014" => "manylinux_2_17",
            rest => rest,
        };
        let (least_major, least_minor) = rest.strip_prefix(prefix)?.split_once('_')?;
        let least: (u32, u32) = (least_major.parse().ok()?, least_minor.parse().ok()?);
        (least <= (major, minor)).then_some(100 + least.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_specific_wheel_that_fits_wins() {
        let target = Target {
            python: 11,
            platform: Platform::amd64(),
            libc: Libc::Glibc(2, 36),
        };
        let worst_to_best = [
            "a-1-py2.py3-none-any.whl",
            "a-1-py311-none-any.whl",
            "a-1-cp39-abi3-manylinux_2_17_x86_64.whl",
            "a-1-cp311-abi3-manylinux1_x86_64.whl",
            "a-1-cp311-cp311-manylinux2014_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux_2_28_x86_64.whl",
            "a-1-2-cp311-cp311-manylinux_2_28_x86_64.whl",
        ];
        let ranks = worst_to_best.map(|name| target.rank(name).expect(name));
        assert!(ranks.windows(2).all(|pair| pair[0] < pair[1]), "{ranks:?}");
        for unfit in [
            "a-1-cp312-cp312-manylinux_2_17_x86_64.whl",
            "a-1-cp312-abi3-manylinux_2_17_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_39_x86_64.whl",
            "a-1-cp311-cp311-musllinux_1_1_x86_64.whl",
            "a-1-cp311-cp311-manylinux_2_17_aarch64.whl",
            "a-1-cp311-cp311-win_amd64.whl",
            "a-1-py2-none-any.whl",
            "a.tar.gz",
            "../a-1-py3-none-any.whl",
            "a-1-cp313-cp313t-manylinux_2_17_x86_64.whl",
        ] {
            assert_eq!(target.rank(unfit), None, "{unfit}");
        }
    }

    #[test]
    fn uv_is_asked_for_no_newer_libc_than_the_base_has() {
        let platform = |libc| {
            Target {
                python: 11,
                platform: Platform::amd64(),
                libc,
            }
            .uv_platform()
        };
        assert_eq!(platform(Libc::Glibc(2, 36)), "x86_64-manylinux_2_36");
        assert_eq!(platform(Libc::Glibc(2, 41)), "x86_64-manylinux_2_40");
        assert_eq!(platform(Libc::Glibc(2, 30)), "x86_64-manylinux_2_28");
        assert_eq!(platform(Libc::Musl(1, 2)), "x86_64-unknown-linux-musl");
    }

    #[test]
    fn wheels_for_one_libc_do_not_fit_another() {
        let target = Target {
            python: 11,
            platform: Platform::amd64(),
            libc: Libc::Musl(1, 2),
        };
        let of = |platform: &str| target.rank(&format!("a-1-cp311-cp311-{platform}.whl"));
        assert!(of("musllinux_1_2_x86_64") > of("musllinux_1_1_x86_64"));
        assert!(of("musllinux_1_1_x86_64") > of("any"));
        assert!(of("manylinux2014_x86_64.musllinux_1_1_x86_64").is_some());
        for unfit in [
            "musllinux_1_3_x86_64",
            "musllinux_1_2_aarch64",
            "manylinux_2_17_x86_64",
            "manylinux1_x86_64",
        ] {
            assert_eq!(of(unfit), None, "{unfit}");
        }
    }
}
