//! A part of a plan, for one of several machines.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of so many parts into which a plan is dealt out: `2/4`. The same plan is always dealt out in the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Shard {
    /// From 1 on.
    number: u32,
    /// How many there are.
    of: u32,
}

impl Shard {
    /// More parts than any plan has cells.
    pub const MOST: u32 = 1000;

    /// All parts, in order.
    pub fn all(of: u32) -> impl Iterator<Item = Self> {
        (1..=of).map(move |number| Self { number, of })
    }

    /// How many there are.
    pub fn of(self) -> u32 {
        self.of
    }

    /// Whether the cell at this place of the plan, counted from 0, is in it. Cells go round like cards: neighbours in a
    /// plan are alike, and take alike.
    pub fn has(self, place: usize) -> bool {
        place % (self.of as usize) == self.number as usize - 1
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) && of <= Self::MOST => Ok(Self { number, of }),
            _ => Err(format!("{text:?} is no part of a plan: 2/4 is the second of four, of at most {}", Self::MOST)),
        }
    }
}

impl TryFrom<String> for Shard {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Shard> for String {
    fn from(shard: Shard) -> Self {
        shard.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cell_is_in_exactly_one_part_and_parts_differ_by_one_at_most() {
        for of in 1..=7 {
            for cells in 0..20 {
                let sizes: Vec<usize> =
                    Shard::all(of).map(|shard| (0..cells).filter(|place| shard.has(*place)).count()).collect();
                assert_eq!(sizes.iter().sum::<usize>(), cells);
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{sizes:?}");
            }
        }
    }

    #[test]
    fn what_is_no_part_is_refused() {
        assert_eq!("2/4".parse::<Shard>().unwrap().to_string(), "2/4");
        for text in ["", "2", "0/4", "5/4", "1/0", "-1/4", "1/4/2", "1/1001", "a/b"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
