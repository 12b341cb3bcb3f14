//! The kinds of settings: how the text of a value becomes a field of [`Config`], and back.

use crate::config::Config;
use crate::config::rules::Rules;
use crate::process::command_line::{join, split};
use crate::process::values::{duration, not_empty, number, show_duration, show_size, size, switch};
use std::path::PathBuf;
use std::time::Duration;

/// One field of [`Config`].
#[derive(Debug)]
pub struct Field<T: 'static> {
    pub(super) of: fn(&Config) -> &T,
    pub(super) of_mut: fn(&mut Config) -> &mut T,
}

/// What a setting takes.
#[derive(Debug)]
pub enum Kind {
    /// True or false; on the command line the flag alone means true.
    Switch(Field<bool>),
    /// A time within bounds.
    Time(Field<Duration>, Duration, Duration),
    /// A time within bounds, or the word that stands for none.
    TimeOr(Field<Option<Duration>>, &'static str, Duration, Duration),
    /// A number of bytes within bounds.
    Size(Field<usize>, usize, usize),
    /// A number within bounds.
    Count(Field<usize>, usize, usize),
    /// The path of a folder.
    Folder(Field<PathBuf>),
    /// The path of a file or a folder (which, the first says), or `none`.
    PathOrNone(&'static str, Field<Option<PathBuf>>),
    /// Several values; a source that has the setting takes the place of what the sources below it have.
    List(&'static str, Field<Vec<String>>, fn(&str) -> Result<String, String>),
    /// A command with its arguments, or `none`, which is an empty list.
    Words(&'static str, Field<Vec<String>>),
    /// Rules, one after the other; sources replace each other as for a list.
    Rules(Rules),
    /// One of a kind.
    Own(Own),
}

/// A setting that reads and shows its value in its own way.
#[derive(Debug)]
pub struct Own {
    /// What stands for the value in the help.
    pub(super) value: &'static str,
    /// The words that it takes, if it takes some only.
    pub(super) words: &'static [&'static str],
    /// What it takes, as a text for the reference; empty if the words say it.
    pub(super) takes: &'static str,
    pub(super) set: fn(&mut Config, &str) -> Result<(), String>,
    pub(super) show: fn(&Config) -> String,
}

/// The words as a text: `a, b or c`.
pub(super) fn alternatives(words: &[&str]) -> String {
    match words {
        [] => String::new(),
        [only] => (*only).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// The word for a setting that is off.
const NONE: &str = "none";

impl Kind {
    /// What stands for the value in the help; empty for a switch.
    pub fn value(&self) -> &'static str {
        match self {
            Kind::Switch(_) => "",
            Kind::Time(..) | Kind::TimeOr(..) => "TIME",
            Kind::Size(..) => "SIZE",
            Kind::Count(..) => "COUNT",
            Kind::Folder(_) => "DIR",
            Kind::PathOrNone(value, _) | Kind::List(value, ..) | Kind::Words(value, _) => value,
            Kind::Rules(rules) => rules.value,
            Kind::Own(own) => own.value,
        }
    }

    /// The words that it takes, if it takes some only; for completions.
    pub fn words(&self) -> &'static [&'static str] {
        match self {
            Kind::Switch(_) => &["true", "false"],
            Kind::Own(own) => own.words,
            _ => &[],
        }
    }

    /// What it takes, for the reference.
    pub fn takes(&self) -> String {
        match self {
            Kind::Switch(_) => "true or false".to_owned(),
            Kind::Time(_, least, most) => format!("{} to {}", show_duration(*least), show_duration(*most)),
            Kind::TimeOr(_, word, least, most) => {
                format!("{} to {}, or {word}", show_duration(*least), show_duration(*most))
            }
            Kind::Count(_, least, most) => format!("{least} to {most}"),
            Kind::Size(_, least, most) => format!("{} to {}", show_size(*least), show_size(*most)),
            Kind::Folder(_) => "a path".to_owned(),
            Kind::PathOrNone(..) => "a path, or none".to_owned(),
            Kind::List(..) => "a list, or none".to_owned(),
            Kind::Words(..) => "a command with its arguments, or none".to_owned(),
            Kind::Rules(rules) => rules.takes.to_owned(),
            Kind::Own(own) if own.takes.is_empty() => alternatives(own.words),
            Kind::Own(own) => own.takes.to_owned(),
        }
    }

    /// Puts the value that `text` stands for into `config`; a list gets it as one more, `none` empties it.
    ///
    /// # Errors
    /// The value cannot be read or is out of bounds; `config` is unchanged, and the text says what would be right.
    pub(super) fn set(&self, config: &mut Config, text: &str) -> Result<(), String> {
        match self {
            Kind::Switch(field) => *(field.of_mut)(config) = switch(text)?,
            Kind::Time(field, least, most) => *(field.of_mut)(config) = duration(text, *least, *most)?,
            Kind::TimeOr(field, word, ..) if text == *word => *(field.of_mut)(config) = None,
            Kind::TimeOr(field, word, least, most) => {
                let value = duration(text, *least, *most).map_err(|wanted| format!("{wanted}, or {word}"))?;
                *(field.of_mut)(config) = Some(value);
            }
            Kind::Count(field, least, most) => {
                *(field.of_mut)(config) = number(text, *least as u64, *most as u64)? as usize;
            }
            Kind::Size(field, least, most) => *(field.of_mut)(config) = size(text, *least, *most)?,
            Kind::Folder(field) => *(field.of_mut)(config) = not_empty(text)?.into(),
            Kind::PathOrNone(_, field) => {
                let path = not_empty(text)?;
                *(field.of_mut)(config) = (path != NONE).then(|| path.into());
            }
            Kind::List(_, field, _) if text == NONE => (field.of_mut)(config).clear(),
            Kind::List(_, field, read) => {
                let value = read(text)?;
                (field.of_mut)(config).push(value);
            }
            Kind::Words(_, field) if text == NONE => (field.of_mut)(config).clear(),
            Kind::Words(..) => self.set_words(config, split(text)?)?,
            Kind::Rules(rules) if text == NONE => (rules.clear)(config),
            Kind::Rules(rules) => (rules.add)(config, text)?,
            Kind::Own(own) => (own.set)(config, text)?,
        }
        Ok(())
    }

    /// Puts these words into `config`, if it is a command that the setting takes.
    ///
    /// # Errors
    /// There is no program among them, or a program cannot be given one of them; `config` is unchanged.
    pub(super) fn set_words(&self, config: &mut Config, words: Vec<String>) -> Result<(), String> {
        let Kind::Words(_, field) = self else {
            return Err("it takes no list of words".to_owned());
        };
        if words.first().is_none_or(String::is_empty) {
            return Err("write a program with its arguments, or none".to_owned());
        }
        if words.iter().any(|word| word.contains('\0')) {
            return Err("a program cannot be given the character NUL; leave it out".to_owned());
        }
        *(field.of_mut)(config) = words;
        Ok(())
    }

    /// Takes away what the list has, so that values which are set from now on take its place. Nothing for another kind.
    pub(super) fn begin(&self, config: &mut Config) {
        match self {
            Kind::List(_, field, _) => (field.of_mut)(config).clear(),
            Kind::Rules(rules) => (rules.clear)(config),
            _ => {}
        }
    }

    /// The value in force, as it could be given again; a list's with commas between.
    pub(super) fn show(&self, config: &Config) -> String {
        match self {
            Kind::Switch(field) => (field.of)(config).to_string(),
            Kind::Time(field, ..) => show_duration(*(field.of)(config)),
            Kind::TimeOr(field, word, ..) => (field.of)(config).map_or((*word).to_owned(), show_duration),
            Kind::Count(field, ..) => (field.of)(config).to_string(),
            Kind::Size(field, ..) => show_size(*(field.of)(config)),
            Kind::Folder(field) => (field.of)(config).display().to_string(),
            Kind::PathOrNone(_, field) => match (field.of)(config) {
                Some(path) => path.display().to_string(),
                None => NONE.to_owned(),
            },
            Kind::List(_, field, _) => match (field.of)(config).as_slice() {
                [] => NONE.to_owned(),
                values => values.join(","),
            },
            Kind::Words(_, field) => match (field.of)(config).as_slice() {
                [] => NONE.to_owned(),
                // A program of that name.
                [only] if only == NONE => format!("'{NONE}'"),
                words => join(words.iter().map(String::as_str)),
            },
            Kind::Rules(rules) => match (rules.texts)(config).as_slice() {
                [] => NONE.to_owned(),
                texts => texts.join(","),
            },
            Kind::Own(own) => (own.show)(config),
        }
    }

    /// The values in force, one for each time that the setting would be given.
    pub(super) fn values(&self, config: &Config) -> Vec<String> {
        match self {
            Kind::List(_, field, _) => (field.of)(config).clone(),
            Kind::Rules(rules) => (rules.texts)(config),
            _ => vec![self.show(config)],
        }
    }
}
