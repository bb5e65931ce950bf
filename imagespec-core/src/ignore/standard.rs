//! What is never copied: flytekit's standard patterns `*.pyc`, `.cache`, `.cache/*`, `__pycache__/*` and
//! `**/__pycache__/*`, in which `*` matches anything.

pub(super) fn ignores(path: &str) -> bool {
    path.as_bytes().ends_with(b".pyc")
        || path == ".cache"
        || path.starts_with(".cache/")
        || path.starts_with("__pycache__/")
        || path.contains("/__pycache__/")
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_standard_patterns_hold() {
        for ignored in [
            "a.pyc",
            "a/b.pyc",
            ".cache",
            ".cache/x/y",
            "__pycache__/x",
            "a/__pycache__/b/c",
        ] {
            assert!(super::ignores(ignored), "{ignored}");
        }
        for kept in ["a.py", "a/.cache", "__pycache__", "pycache/x", "a/cache"] {
            assert!(!super::ignores(kept), "{kept}");
        }
    }
}
