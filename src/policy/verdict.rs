//! Rules that allow or deny, the first of which decides.

use crate::{policy::contract::Build, yaml::Spanned};

/// What a rule says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Allow,
    Deny,
}

impl Verdict {
    /// Reads `allow` or `deny`, and whom it is about.
    ///
    /// # Errors
    /// What is wrong with it, as a rule of this policy.
    pub(super) fn split<'t>(rule: &'t str, policy: &str) -> Result<(Self, &'t str), String> {
        let (verdict, whom) =
            rule.split_once(' ').ok_or_else(|| format!("`{rule}` is no rule of `{policy}`"))?;
        match verdict {
            "allow" => Ok((Self::Allow, whom.trim())),
            "deny" => Ok((Self::Deny, whom.trim())),
            other => Err(format!("`{other}` is no verdict")),
        }
    }

    pub(super) fn as_str(self) -> &'static str {
        if self == Self::Allow { "allow" } else { "deny" }
    }
}

/// Rules as they are written.
pub(super) type Rules<R> = Spanned<Vec<Spanned<R>>>;

/// Checks that the last rule, and no other, is for all; `false` if none is. `whom` is what the
/// rules are about, with its article.
pub(super) fn end_with_all<R>(
    written: &Rules<R>,
    is_all: impl Fn(&R) -> bool,
    whom: (&str, &str),
    cx: &mut Build<'_>,
) -> bool {
    let (article, noun) = whom;
    let Some(all) = written.value.iter().position(|rule| is_all(&rule.value)) else {
        let help = "end the list with `deny all`, or with `allow all`";
        cx.problem_at(written.span, format!("what becomes of all other {noun}s is not said"), help);
        return false;
    };
    if let Some(never) = written.value.get(all + 1) {
        let help = format!("put `all` last: the first rule that names {article} {noun} decides");
        cx.problem_at(never.span, "this rule is never asked", help);
    }
    true
}
