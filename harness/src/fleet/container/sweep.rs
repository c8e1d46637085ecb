//! Containers that a harness left behind: one that was killed together with its guard.

use std::time::Duration;

use super::docker::call;
use crate::fleet::call::CallError;
use crate::fleet::owner;

const TO_ANSWER: Duration = Duration::from_secs(60);

/// The containers of runs on this machine that are over, by their names.
pub(crate) async fn containers_left_behind() -> Result<Vec<String>, CallError> {
    let ours = format!("label={}={}", owner::MACHINE, owner::machine());
    let format = format!("{{{{.Names}}}}\t{{{{.Label {:?}}}}}", owner::RUN);
    let args = ["ps", "--all", "--filter", &ours, "--format", &format];
    Ok(left(&call("list the containers", TO_ANSWER, &args).await?))
}

fn left(listed: &str) -> Vec<String> {
    let named = listed.lines().filter_map(|line| line.split_once('\t'));
    named.filter(|(_, run)| owner::is_over(run)).map(|(name, _)| name.to_owned()).collect()
}

/// Ends one of them, and takes it away.
pub(crate) async fn sweep_container(name: &str) -> Result<(), CallError> {
    call(&format!("remove the container {name}"), TO_ANSWER, &["rm", "--force", "--volumes", name]).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_containers_of_runs_that_are_over_are_left() {
        let over = owner::run();
        assert_eq!(left(&format!("a\t{over}\nb\t\nc\tsomething\nd\n")), ["a"]);
        assert!(left("").is_empty());
    }
}
