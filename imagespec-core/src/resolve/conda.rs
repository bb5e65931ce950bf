//! Conda packages of a spec, those of CUDA and cuDNN among them.

use crate::error::BuildError;
use crate::plan::Step;
use crate::spec::ImageSpec;

use super::sources::Inputs;

/// The step that installs Conda packages, if a spec asks for any.
pub(super) fn packages(
    spec: &ImageSpec,
    inputs: &mut Inputs<'_>,
) -> Result<Option<Step>, BuildError> {
    let mut packages = spec.conda_packages.clone().unwrap_or_default();
    let field = match (&spec.cuda, &spec.cudnn) {
        _ if !packages.is_empty() => "conda_packages",
        (Some(_), _) => "cuda",
        (None, Some(_)) => "cudnn",
        (None, None) => "conda_channels",
    };
    if let Some(version) = &spec.cuda {
        packages.extend(cuda(version)?);
    }
    if let Some(version) = &spec.cudnn {
        let numbers = numbers("cudnn", version, 4)?;
        packages.push(format!("cudnn={}", numbers.join(".")));
    }
    let channels = spec.conda_channels.iter().flatten();
    let channels: Vec<_> = channels.map(|channel| inputs.strip(channel)).collect();
    if packages.is_empty() && channels.is_empty() {
        return Ok(None);
    }
    Ok(Some(Step::CondaPackages {
        field: field.to_owned(),
        packages,
        channels,
    }))
}

/// The packages of `conda-forge` that are a version of CUDA, without its compilers: one before CUDA 12, a package
/// that chooses the version and one that has its libraries since.
fn cuda(version: &str) -> Result<Vec<String>, BuildError> {
    let numbers = numbers("cuda", version, 3)?;
    let is_old = numbers[0].parse().is_ok_and(|major: u32| major < 12);
    if is_old {
        return Ok(vec![format!("cudatoolkit={}", numbers.join("."))]);
    }
    // A release that corrects one has the name of that.
    let version = numbers[..numbers.len().min(2)].join(".");
    Ok(vec![
        format!("cuda-version={version}"),
        "cuda-runtime".to_owned(),
    ])
}

/// The numbers of a version, one at least.
fn numbers<'v>(
    field: &'static str,
    version: &'v str,
    most: usize,
) -> Result<Vec<&'v str>, BuildError> {
    let numbers: Vec<_> = version.split('.').collect();
    let is_number = |part: &&str| {
        (1..=6).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
    };
    if numbers.len() <= most && numbers.iter().all(is_number) {
        return Ok(numbers);
    }
    let message = format!("expected a version, as `12` or `12.4`: `{version}`");
    Err(BuildError::input(message).field(field))
}
