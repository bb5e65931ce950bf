//! What the commands of a spec may use, and what is said where they use more.

use imagespec_core::error::BuildError;
use imagespec_sandbox::{Limit, Limits};
use serde_json::Value;

const GIBIBYTE: u64 = 1 << 30;

/// The options that set a bound.
pub(crate) const OPTIONS: [(&str, &str); 5] = [
    (
        "run_memory",
        "memory of a command, as `8GiB`; 0: no bound; default: three quarters of the machine's",
    ),
    (
        "run_processes",
        "processes and threads of a command; 0: no bound; default: 4096",
    ),
    (
        "run_timeout",
        "time of a command, as `90s`, `30m` or `6h`; 0: no bound; default: 6h",
    ),
    (
        "run_output",
        "bytes that a command may print; 0: no bound; default: 256MiB",
    ),
    (
        "run_disk",
        "bytes that a command may leave on the disk; 0: no bound; default: 64GiB",
    ),
];

/// The bounds where no option says otherwise.
pub(crate) fn defaults() -> Limits {
    Limits {
        memory: machine_memory().map(|bytes| bytes / 4 * 3),
        processes: Some(4096),
        seconds: Some(6 * 3600),
        output: Some(GIBIBYTE / 4),
        disk: Some(64 * GIBIBYTE),
    }
}

/// Bytes of memory that this machine has.
fn machine_memory() -> Option<u64> {
    let text = fs_err::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes << 10)
}

/// Sets a bound; `None` if there is no option of that name, else what is expected of its value.
pub(crate) fn set(
    limits: &mut Limits,
    name: &str,
    value: &Value,
) -> Option<Result<(), &'static str>> {
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => String::new(),
    };
    let (slot, expected, units): (_, _, &[(&str, u64)]) = match name {
        "run_memory" => (&mut limits.memory, BYTES, &SIZES),
        "run_disk" => (&mut limits.disk, BYTES, &SIZES),
        "run_output" => (&mut limits.output, BYTES, &SIZES),
        "run_processes" => (&mut limits.processes, "a number", &[]),
        "run_timeout" => (&mut limits.seconds, "a time such as `90s` or `6h`", &TIMES),
        _ => return None,
    };
    let Some(number) = quantity(&text, units) else {
        return Some(Err(expected));
    };
    *slot = (number > 0).then_some(number);
    Some(Ok(()))
}

const BYTES: &str = "a size such as `512MiB` or `8GiB`";
const SIZES: [(&str, u64); 9] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("kb", 1000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("k", 1 << 10),
    ("m", 1 << 20),
    ("g", 1 << 30),
];
const TIMES: [(&str, u64); 3] = [("s", 1), ("m", 60), ("h", 3600)];

fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.to_lowercase();
    let unit = units
        .iter()
        .find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor)));
    let (digits, factor) = unit.unwrap_or((&text, 1));
    digits.trim().parse::<u64>().ok()?.checked_mul(factor)
}

/// What to say where a command of `field` was ended for using too much.
pub(crate) fn exceeded(limit: Limit, limits: &Limits, field: &str) -> BuildError {
    let bound = limits.of(limit).unwrap_or_default();
    let (what, option) = match limit {
        Limit::Memory => (format!("more memory than {}", size(bound)), "run_memory"),
        Limit::Processes => (format!("more processes than {bound}"), "run_processes"),
        Limit::Seconds => (format!("more time than {bound} s"), "run_timeout"),
        Limit::Output => (format!("more output than {}", size(bound)), "run_output"),
        Limit::Disk => (format!("more of the disk than {}", size(bound)), "run_disk"),
        Limit::Full => {
            return BuildError::failed(format!("a command of `{field}` filled the disk"))
                .field(field)
                .hint("free some space, `imagespec cache prune`, or name a folder elsewhere: `IMAGESPEC_CACHE_DIR`");
        }
    };
    BuildError::failed(format!(
        "a command of `{field}` was ended, as it used {what}"
    ))
    .field(field)
    .hint(format!(
        "allow it more, or 0 for no bound: `--option {option}=VALUE`"
    ))
}

fn size(bytes: u64) -> String {
    if bytes >= GIBIBYTE && bytes.is_multiple_of(GIBIBYTE) {
        format!("{} GiB", bytes / GIBIBYTE)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_set_by_options_with_units() {
        let mut limits = defaults();
        let mut given = |name: &str, value: Value| set(&mut limits, name, &value);
        assert_eq!(given("run_memory", "512MiB".into()), Some(Ok(())));
        assert_eq!(given("run_timeout", "2h".into()), Some(Ok(())));
        assert_eq!(given("run_processes", 7.into()), Some(Ok(())));
        assert_eq!(given("run_output", "0".into()), Some(Ok(())));
        assert_eq!(given("run_disk", "1 GB".into()), Some(Ok(())));
        assert_eq!(given("run_disk", "-1".into()), Some(Err(BYTES)));
        assert_eq!(
            given("run_memory", "99999999999999GiB".into()),
            Some(Err(BYTES))
        );
        assert_eq!(given("run_else", 1.into()), None);
        let expected = Limits {
            memory: Some(512 << 20),
            processes: Some(7),
            seconds: Some(7200),
            output: None,
            disk: Some(1_000_000_000),
        };
        assert_eq!(limits, expected);
    }
}
