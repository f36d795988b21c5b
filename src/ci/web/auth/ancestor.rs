//! The file of local users as DataKitCI wrote it, `passwords.sexp`: an
//! S-expression with, for each user, a PBKDF2 of HMAC-SHA-1 (RFC 8018).
//!
//! ```text
//! ((NAME ((prf SHA1) (salt BYTES) (hashed_password BYTES) (count 5000) (dk_len 20))) …)
//! ```
//!
//! It is only ever read. What it holds becomes lines of our own file, as
//! `$pbkdf2-sha1$i=COUNT$SALT$HASH`, until the password is known and can be
//! hashed better.

use argon2::PasswordHash;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use pbkdf2::pbkdf2_hmac;
use sha1::Sha1;

/// The name of the file in the folder of secrets.
pub const FILE: &str = "passwords.sexp";

/// What the hashes of the ancestor are called in our file.
const ALGORITHM: &str = "pbkdf2-sha1";

/// More rounds than this are no password file, but work for nothing.
const MOST_ROUNDS: u32 = 10_000_000;

/// How deep a file of users is nested, and some more.
const DEEPEST: usize = 8;

/// Returns the name and the hash of every user of a file; or, in words, why
/// it is none.
pub fn users(text: &[u8]) -> Result<Vec<(String, String)>, String> {
    let mut rest = text;
    let file = expression(&mut rest, 0)?;
    blank(&mut rest);
    if !rest.is_empty() {
        return Err("something follows the list of users".into());
    }
    list(&file)?.iter().map(user).collect()
}

fn user(user: &Expression) -> Result<(String, String), String> {
    let [Expression::Atom(name), Expression::List(fields)] = list(user)? else {
        return Err("a user is a name and a password".into());
    };
    let name = String::from_utf8_lossy(name).into_owned();
    let field = |wanted: &str| {
        let found = fields.iter().find_map(|field| match list(field).ok()? {
            [Expression::Atom(name), Expression::Atom(value)] if name == wanted.as_bytes() => {
                Some(value.as_slice())
            }
            _ => None,
        });
        found.ok_or_else(|| format!("{name} has no {wanted}"))
    };
    let number = |wanted: &str, most: u32| {
        let text = String::from_utf8_lossy(field(wanted)?);
        let number = text
            .parse()
            .ok()
            .filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| format!("{wanted} of {name} is {text}"))
    };
    if field("prf")? != b"SHA1" {
        let prf = String::from_utf8_lossy(field("prf")?).into_owned();
        return Err(format!("prf of {name} is {prf}"));
    }
    let (salt, hash) = (field("salt")?, field("hashed_password")?);
    let rounds = number("count", MOST_ROUNDS)?;
    if number("dk_len", 64)? as usize != hash.len() {
        return Err(format!("dk_len of {name} is not the length of its hash"));
    }
    let [salt, hash] = [salt, hash].map(|bytes| STANDARD_NO_PAD.encode(bytes));
    let line = format!("${ALGORITHM}$i={rounds}${salt}${hash}");
    match PasswordHash::new(&line) {
        Ok(_) => Ok((name, line)),
        Err(error) => Err(format!("the password of {name}: {error}")),
    }
}

/// Tells whether a password is the one of a hash of the ancestor's; nothing
/// where the hash is of another kind.
pub fn check(hash: &PasswordHash, password: &str) -> Option<bool> {
    let rounds = hash.params.get_decimal("i");
    let (ALGORITHM, Some(rounds), Some(salt), Some(known)) =
        (hash.algorithm.as_str(), rounds, &hash.salt, &hash.hash)
    else {
        return None;
    };
    let derived = pbkdf2(password.as_bytes(), salt, rounds, known.len());
    let different = derived
        .iter()
        .zip(known.as_bytes())
        .fold(0, |different, (a, b)| different | (a ^ b));
    Some(different == 0)
}

fn pbkdf2(password: &[u8], salt: &[u8], rounds: u32, length: usize) -> Vec<u8> {
    let mut derived = vec![0; length];
    pbkdf2_hmac::<Sha1>(password, salt, rounds, &mut derived);
    derived
}

enum Expression {
    Atom(Vec<u8>),
    List(Vec<Expression>),
}

fn list(expression: &Expression) -> Result<&[Expression], String> {
    match expression {
        Expression::List(list) => Ok(list),
        Expression::Atom(_) => Err("a list is expected".into()),
    }
}

/// Skips blanks, and comments to the end of their line.
fn blank(rest: &mut &[u8]) {
    loop {
        *rest = rest.trim_ascii_start();
        if rest.first() != Some(&b';') {
            return;
        }
        let end = rest.iter().position(|byte| *byte == b'\n');
        *rest = &rest[end.unwrap_or(rest.len())..];
    }
}

fn expression(rest: &mut &[u8], depth: usize) -> Result<Expression, String> {
    blank(rest);
    match rest.split_first() {
        None => Err("it ends too early".into()),
        Some((b')', _)) => Err("a ) too many".into()),
        Some((b'(', _)) if depth == DEEPEST => Err("it is nested too deep".into()),
        Some((b'(', after)) => {
            *rest = after;
            let mut list = Vec::new();
            loop {
                blank(rest);
                if let Some(after) = rest.strip_prefix(b")") {
                    *rest = after;
                    return Ok(Expression::List(list));
                }
                list.push(expression(rest, depth + 1)?);
            }
        }
        Some((b'"', after)) => {
            *rest = after;
            quoted(rest).map(Expression::Atom)
        }
        Some(_) => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || b"()\";".contains(byte);
            let end = rest.iter().position(ends).unwrap_or(rest.len());
            let (atom, after) = rest.split_at(end);
            *rest = after;
            Ok(Expression::Atom(atom.to_vec()))
        }
    }
}

/// Reads the rest of a string as OCaml writes it.
fn quoted(rest: &mut &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    loop {
        let Some((first, after)) = rest.split_first() else {
            return Err("a string has no end".into());
        };
        *rest = after;
        match first {
            b'"' => return Ok(bytes),
            b'\\' => bytes.extend(escaped(rest)?),
            byte => bytes.push(*byte),
        }
    }
}

fn escaped(rest: &mut &[u8]) -> Result<Option<u8>, String> {
    let number = |digits: &[u8], radix| {
        let digits = std::str::from_utf8(digits).ok()?;
        u8::from_str_radix(digits, radix).ok()
    };
    let (byte, after) = match **rest {
        [b'n', ref after @ ..] => (Some(b'\n'), after),
        [b't', ref after @ ..] => (Some(b'\t'), after),
        [b'r', ref after @ ..] => (Some(b'\r'), after),
        [b'b', ref after @ ..] => (Some(8), after),
        // The string goes on in the next line.
        [b'\n', ref after @ ..] => (None, after.trim_ascii_start()),
        [b'x', a, b, ref after @ ..] => (number(&[a, b], 16), after),
        [a, b, c, ref after @ ..] if a.is_ascii_digit() => (number(&[a, b, c], 10), after),
        [byte, ref after @ ..] if !byte.is_ascii_alphanumeric() => (Some(byte), after),
        _ => return Err("a \\ that means nothing".into()),
    };
    let continued = rest.first() == Some(&b'\n');
    *rest = after;
    match byte {
        None if !continued => Err("a \\ that means no byte".into()),
        byte => Ok(byte),
    }
}

/// The file of the ancestor's own tests: admin, fred.
#[cfg(test)]
pub(super) const EXAMPLE: &[u8] = br#"((admin((prf SHA1)(salt"\172~\212>|'\154\202\224\128?\158\160\245\243j")(hashed_password"_\231gB\136\221\159!\164%\024\"0H\"\230\172\142\166\138")(count 5000)(dk_len 20))))"#;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::text::hex;

    #[test]
    fn the_ancestors_own_file_is_understood() {
        let users = users(EXAMPLE).expect("a file");
        assert_eq!(users.len(), 1);
        assert_eq!(users[0].0, "admin");
        let hash = PasswordHash::new(&users[0].1).expect("a hash");
        assert_eq!(check(&hash, "fred"), Some(true));
        assert_eq!(check(&hash, "fred!"), Some(false));
    }

    #[test]
    fn the_derivation_is_that_of_the_rfc() {
        // RFC 6070.
        for (password, salt, rounds, derived) in [
            (
                "password",
                "salt",
                2,
                "ea6c014dc72d6f8ccd1ed92ace1d41f0d8de8957",
            ),
            (
                "passwordPASSWORDpassword",
                "saltSALTsaltSALTsaltSALTsaltSALTsalt",
                4096,
                "3d2eec4fe41c849b80c8d83662c0e44a8b291a964cf2f07038",
            ),
        ] {
            let length = derived.len() / 2;
            let got = pbkdf2(password.as_bytes(), salt.as_bytes(), rounds, length);
            assert_eq!(hex(&got), derived);
        }
    }

    #[test]
    fn what_is_no_file_of_users_is_refused_in_words() {
        for (text, why) in [
            ("", "it ends too early"),
            ("(", "it ends too early"),
            ("())", "something follows the list of users"),
            ("admin", "a list is expected"),
            ("((admin))", "a user is a name and a password"),
            ("((admin ()))", "admin has no prf"),
            ("((admin ((prf MD5))))", "prf of admin is MD5"),
            ("((a \"\\q\"))", "a \\ that means nothing"),
            ("((a \"\\999\"))", "a \\ that means no byte"),
            ("((a \"b", "a string has no end"),
            ("((((((((((", "it is nested too deep"),
            (
                "((a((prf SHA1)(salt saltsalt)(hashed_password 0123456789)(count 0)(dk_len 10))))",
                "count of a is 0",
            ),
            (
                "((a((prf SHA1)(salt saltsalt)(hashed_password 0123456789)(count 1)(dk_len 20))))",
                "dk_len of a is not the length of its hash",
            ),
        ] {
            assert_eq!(users(text.as_bytes()), Err(why.into()), "{text}");
        }
        assert_eq!(users(b" ( ) ; nobody\n"), Ok(Vec::new()));
    }
}
