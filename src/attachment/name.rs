//! File names as the systems of recipients read them, and the tricks that hide what they are.

/// A file name, read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Name {
    /// The last component without what cannot be seen: for people.
    pub shown: String,
    /// Lower case, ASCII wherever a letter looks like ASCII; empty where there is none.
    pub extension: String,
    /// The extension before the last: `pdf` of `scan.pdf.exe`.
    pub inner_extension: String,
    pub tricks: Tricks,
}

/// How a name misleads. Some are innocent on a harmless file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tricks {
    /// Characters that turn the reading direction: `exe.fdp` is shown for `pdf.exe`.
    pub reversed: bool,
    /// The extension is written with letters or dots that only look like those of a known one.
    pub look_alike: bool,
    /// Dots, spaces or a stream name after the extension: Windows drops them.
    pub trailing: bool,
    /// Blanks that push the extension out of sight.
    pub padded: bool,
}

/// Characters of a name that are shown.
const SHOWN_MAX: usize = 120;
const EXTENSION_MAX: usize = 40;
/// As many blanks before an extension are no accident.
const PADDING: usize = 8;

impl Name {
    /// Reads a name or path; the last component counts.
    pub fn read(raw: &str) -> Self {
        let mut tricks = Tricks::default();
        // What follows a NUL is not seen by many programs.
        let before_nul = raw.split('\0').find(|part| !part.is_empty()).unwrap_or_default();
        tricks.trailing = before_nul.len() + 1 < raw.len() && raw.contains('\0');
        let last = before_nul.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default();
        tricks.reversed = last.chars().any(|c| matches!(c, '\u{202b}' | '\u{202d}' | '\u{202e}' | '\u{2067}'));
        let mut visible: String = last.chars().filter(|c| !is_invisible(*c)).take(1000).collect();
        // `x.exe:stream` and `x.exe::$DATA` open `x.exe`.
        if let Some(at) = visible.find(':').filter(|at| *at > 1) {
            tricks.trailing |= visible.get(..at).is_some_and(|front| front.contains('.'));
            visible.truncate(at);
        }
        let trimmed = visible.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
        tricks.trailing |= trimmed.len() < visible.len();
        let trimmed = trimmed.trim_start();
        let skeleton: String = trimmed.chars().map(look).collect();
        let (stem, extension) = match split(&skeleton) {
            // Windows opens a name with a class id for an extension with the program of that class.
            Some((stem, extension)) if extension.chars().count() <= EXTENSION_MAX => (stem, extension),
            _ => (&*skeleton, ""),
        };
        let end: String = trimmed.chars().rev().take(extension.chars().count() + 1).collect();
        tricks.look_alike = !extension.is_empty() && !end.is_ascii() && extension.is_ascii();
        let blanks = stem.chars().rev().take_while(|c| c.is_whitespace()).count();
        tricks.padded = blanks >= PADDING && !extension.is_empty();
        let inner = split(stem.trim_end()).map(|(_, inner)| inner).filter(|inner| inner.len() <= EXTENSION_MAX);
        Self {
            shown: trimmed.chars().take(SHOWN_MAX).collect(),
            extension: extension.trim().to_ascii_lowercase(),
            inner_extension: inner.unwrap_or_default().trim().to_ascii_lowercase(),
            tricks,
        }
    }
}

fn split(text: &str) -> Option<(&str, &str)> {
    text.rsplit_once('.').filter(|(_, extension)| !extension.is_empty())
}

fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// The ASCII character that `c` looks like, or `c`.
fn look(c: char) -> char {
    match c {
        // Full-width forms lie in the order of ASCII.
        '\u{ff01}'..='\u{ff5e}' => u32::from(c).checked_sub(0xfee0).and_then(char::from_u32).unwrap_or(c),
        '\u{2024}' | '\u{3002}' | '\u{ff61}' | '\u{a4f8}' | '\u{fe52}' | '\u{701}' | '\u{660}' => '.',
        '\u{430}' | '\u{3b1}' | '\u{251}' => 'a',
        '\u{441}' | '\u{3f2}' | '\u{1d04}' => 'c',
        '\u{501}' => 'd',
        '\u{435}' | '\u{212f}' | '\u{451}' => 'e',
        '\u{4bb}' => 'h',
        '\u{456}' | '\u{131}' | '\u{3b9}' | '\u{269}' => 'i',
        '\u{458}' | '\u{3f3}' => 'j',
        '\u{43a}' | '\u{3ba}' => 'k',
        '\u{4cf}' | '\u{217c}' => 'l',
        '\u{43c}' | '\u{217f}' => 'm',
        '\u{578}' | '\u{43f}' => 'n',
        '\u{43e}' | '\u{3bf}' => 'o',
        '\u{440}' | '\u{3c1}' => 'p',
        '\u{51b}' => 'q',
        '\u{433}' | '\u{1d26}' => 'r',
        '\u{455}' => 's',
        '\u{442}' | '\u{3c4}' => 't',
        '\u{57d}' | '\u{3c5}' => 'u',
        '\u{475}' | '\u{3bd}' | '\u{2174}' => 'v',
        '\u{51d}' | '\u{461}' => 'w',
        '\u{445}' | '\u{3c7}' | '\u{2179}' => 'x',
        '\u{443}' | '\u{4af}' => 'y',
        '\u{1d22}' => 'z',
        _ => upper_look(c),
    }
}

fn upper_look(c: char) -> char {
    match c {
        '\u{410}' | '\u{391}' => 'A',
        '\u{412}' | '\u{392}' => 'B',
        '\u{421}' => 'C',
        '\u{415}' | '\u{395}' => 'E',
        '\u{41d}' | '\u{397}' => 'H',
        '\u{406}' | '\u{399}' => 'I',
        '\u{408}' => 'J',
        '\u{41a}' | '\u{39a}' => 'K',
        '\u{41c}' | '\u{39c}' => 'M',
        '\u{39d}' => 'N',
        '\u{41e}' | '\u{39f}' => 'O',
        '\u{420}' | '\u{3a1}' => 'P',
        '\u{405}' => 'S',
        '\u{422}' | '\u{3a4}' => 'T',
        '\u{425}' | '\u{3a7}' => 'X',
        '\u{423}' | '\u{3a5}' => 'Y',
        '\u{396}' => 'Z',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(raw: &str, extension: &str, inner: &str, tricks: &str) {
        let name = Name::read(raw);
        assert_eq!((&*name.extension, &*name.inner_extension), (extension, inner), "{raw:?}");
        let seen = [
            (name.tricks.reversed, "reversed"),
            (name.tricks.look_alike, "look-alike"),
            (name.tricks.trailing, "trailing"),
            (name.tricks.padded, "padded"),
        ];
        let seen: Vec<&str> = seen.into_iter().filter(|(is, _)| *is).map(|(_, word)| word).collect();
        assert_eq!(seen.join(" "), tricks, "{raw:?}");
    }

    #[test]
    fn extensions_and_tricks() {
        check("scan.pdf", "pdf", "", "");
        check("Scan.PDF.exe", "exe", "pdf", "");
        check("a/b\\c.d.JS", "js", "d", "");
        check("archive.tar.gz", "gz", "tar", "");
        check("report\u{202e}fdp.exe", "exe", "", "reversed");
        check("x.exe. . ", "exe", "", "trailing");
        check("x.exe\u{a0}", "exe", "", "trailing");
        check("x.exe::$DATA", "exe", "", "trailing");
        check("x.exe\0.pdf", "exe", "", "trailing");
        check("x.\u{435}\u{445}\u{435}", "exe", "", "look-alike");
        check("x\u{ff0e}exe", "exe", "", "look-alike");
        check("x.\u{200b}e\u{200b}xe", "exe", "", "");
        check("invoice.pdf                    .exe", "exe", "pdf", "padded");
        check("f.{3050f4d8-98b5-11cf-bb82-00aa00bdce0b}", "{3050f4d8-98b5-11cf-bb82-00aa00bdce0b}", "", "");
        check("\u{43e}\u{442}\u{447}\u{435}\u{442}.pdf", "pdf", "", "");
        check(".htaccess", "htaccess", "", "");
        check("README", "", "", "");
        check("", "", "", "");
        check("...", "", "", "trailing");
    }

    #[test]
    fn names_are_shown_short_and_visible() {
        assert_eq!(Name::read("a\u{202e}b\r\nc.txt").shown, "abc.txt");
        assert_eq!(Name::read(&"x".repeat(5000)).shown.len(), SHOWN_MAX);
    }
}
