//! A short program that is run under the cell's guard: what a provider's own command line does.

use std::time::Duration;

use super::ProviderError;
use crate::proc::{Exit, Guard, Spawn};

/// How long one may take.
const TO_END: Duration = Duration::from_secs(30);
/// Longer answers are cut, at their beginning.
const LINES: usize = 200;

/// Runs it, and returns what it said. Its log must be its own.
pub(super) async fn run(guard: &Guard, spawn: Spawn) -> Result<Vec<String>, ProviderError> {
    let what = spawn.what.clone();
    let errand = guard.spawn(spawn).await?;
    let Ok(how) = tokio::time::timeout(TO_END, errand.exited()).await else {
        // Its end is the guard's at the latest.
        let _ = errand.signal(crate::proc::Signal::KILL).await;
        return Err(ProviderError::ErrandHangs { what, seconds: TO_END.as_secs() });
    };
    let said = errand.log_tail(LINES).unwrap_or_default();
    match how {
        Exit { code: Some(0), .. } => Ok(said),
        how => {
            let last = said.into_iter().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            Err(ProviderError::Errand { what, how, said: last })
        }
    }
}
