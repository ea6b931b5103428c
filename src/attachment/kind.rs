//! Kinds of content, told by the first octets, and what file name extensions and media types promise.

/// What content is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// PE, DOS, ELF, Mach-O, Java class, Android, WebAssembly.
    Program,
    /// Begins with `#!`.
    Script,
    /// A Windows shell link.
    Shortcut,
    Zip,
    Rar,
    SevenZip,
    Tar,
    Gzip,
    Bzip2,
    Xz,
    Cabinet,
    /// ISO 9660 or UDF.
    Iso,
    /// VHD, VHDX, DMG, WIM, a disk with a partition table.
    DiskImage,
    /// An archive that is told but not read: ACE, ARJ, LZH, Z, Zstandard.
    OtherArchive,
    /// Outlook's `winmail.dat`.
    Tnef,
    /// Compound file: old Office, MSI, Outlook items.
    Ole,
    Pdf,
    Rtf,
    OneNote,
    /// Compiled HTML help.
    Help,
    Html,
    Svg,
    Picture,
    Audio,
    Video,
    Font,
    Calendar,
    Text,
    Unknown,
}

/// Octets that telling a kind may need: an ISO image has its mark at 32 KiB.
pub const HEAD: usize = 40 * 1024;

impl Kind {
    /// By content; the first [`HEAD`] octets are enough, but for marks at the end of disk images.
    pub fn of(content: &[u8]) -> Self {
        const MARKS: &[(usize, &[u8], Kind)] = &[
            (0, b"PK\x03\x04", Kind::Zip),
            (0, b"PK\x05\x06", Kind::Zip),
            (0, b"PK00PK\x03\x04", Kind::Zip),
            (0, b"PK\x07\x08PK\x03\x04", Kind::Zip),
            (0, b"Rar!\x1a\x07", Kind::Rar),
            (0, b"7z\xbc\xaf\x27\x1c", Kind::SevenZip),
            (0, b"\x1f\x8b\x08", Kind::Gzip),
            (0, b"BZh", Kind::Bzip2),
            (0, b"\xfd7zXZ\0", Kind::Xz),
            (0, b"MSCF\0\0\0\0", Kind::Cabinet),
            (0, b"\x7fELF", Kind::Program),
            (0, b"\xfe\xed\xfa\xce", Kind::Program),
            (0, b"\xfe\xed\xfa\xcf", Kind::Program),
            (0, b"\xce\xfa\xed\xfe", Kind::Program),
            (0, b"\xcf\xfa\xed\xfe", Kind::Program),
            // A Java class, or Mach-O for several machines.
            (0, b"\xca\xfe\xba\xbe", Kind::Program),
            (0, b"dex\n", Kind::Program),
            (0, b"\0asm", Kind::Program),
            (0, b"!<arch>\ndebian", Kind::Program),
            (0, b"\xed\xab\xee\xdb", Kind::Program),
            (0, b"L\0\0\0\x01\x14\x02\0\0\0\0\0\xc0\0\0\0\0\0\0F", Kind::Shortcut),
            (0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", Kind::Ole),
            (0, b"ITSF", Kind::Help),
            (0, b"\xe4\x52\x5c\x7b\x8c\xd8\xa7\x4d\xae\xb1\x53\x78\xd0\x29\x96\xd3", Kind::OneNote),
            (0, b"\xa1\x2f\xff\x43\xd9\xef\x76\x4c\x9e\xe2\x10\xea\x57\x22\x76\x5f", Kind::OneNote),
            (0, b"\x78\x9f\x3e\x22", Kind::Tnef),
            (0x8001, b"CD001", Kind::Iso),
            (0x8001, b"BEA01", Kind::Iso),
            (0x8801, b"CD001", Kind::Iso),
            (0, b"conectix", Kind::DiskImage),
            (0, b"vhdxfile", Kind::DiskImage),
            (0, b"MSWIM\0\0\0", Kind::DiskImage),
            (0, b"QFI\xfb", Kind::DiskImage),
            (0, b"KDMV", Kind::DiskImage),
            (257, b"ustar", Kind::Tar),
            (7, b"**ACE**", Kind::OtherArchive),
            (0, b"\x60\xea", Kind::OtherArchive),
            (2, b"-lh", Kind::OtherArchive),
            (0, b"\x1f\x9d", Kind::OtherArchive),
            (0, b"\x28\xb5\x2f\xfd", Kind::OtherArchive),
            (0, b"xar!", Kind::OtherArchive),
            (0, b"LZIP", Kind::OtherArchive),
            (0, b"\x89PNG\r\n\x1a\n", Kind::Picture),
            (0, b"\xff\xd8\xff", Kind::Picture),
            (0, b"GIF87a", Kind::Picture),
            (0, b"GIF89a", Kind::Picture),
            (0, b"II*\0", Kind::Picture),
            (0, b"MM\0*", Kind::Picture),
            (8, b"WEBP", Kind::Picture),
            (0, b"\xd7\xcd\xc6\x9a", Kind::Picture),
            (40, b" EMF", Kind::Picture),
            (4, b"ftypheic", Kind::Picture),
            (4, b"ftypavif", Kind::Picture),
            (4, b"ftypmif1", Kind::Picture),
            (8, b"WAVE", Kind::Audio),
            (0, b"ID3", Kind::Audio),
            (0, b"OggS", Kind::Audio),
            (0, b"fLaC", Kind::Audio),
            (0, b"#!AMR", Kind::Audio),
            (4, b"ftypM4A", Kind::Audio),
            (8, b"AVI ", Kind::Video),
            (4, b"ftyp", Kind::Video),
            (0, b"\x1a\x45\xdf\xa3", Kind::Video),
            (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind::Video),
            (0, b"\0\0\x01\xba", Kind::Video),
            (0, b"OTTO", Kind::Font),
            (0, b"\0\x01\0\0\0", Kind::Font),
            (0, b"wOFF", Kind::Font),
            (0, b"wOF2", Kind::Font),
            (0, b"#!", Kind::Script),
        ];
        let found = MARKS.iter().find(|(at, mark, _)| content.get(*at..).is_some_and(|rest| rest.starts_with(mark)));
        match found {
            Some((_, _, kind)) => *kind,
            None if is_dos_program(content) => Self::Program,
            None if is_bitmap(content) => Self::Picture,
            None if is_old_tar(content) => Self::Tar,
            None if is_partitioned(content) || content.ends_with_mark() => Self::DiskImage,
            None => Self::of_text(content),
        }
    }

    /// Of what may be text.
    fn of_text(content: &[u8]) -> Self {
        // Readers of PDF look for the mark within the first 1,024 octets.
        let head = content.get(..1024.min(content.len())).unwrap_or_default();
        if memchr::memmem::find(head, b"%PDF-").is_some() {
            return Self::Pdf;
        }
        let start = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
        if start.get(..4).is_some_and(|start| start.eq_ignore_ascii_case(b"{\\rt")) {
            return Self::Rtf;
        }
        let begins = |mark: &[u8]| start.get(..mark.len()).is_some_and(|start| start.eq_ignore_ascii_case(mark));
        if begins(b"BEGIN:VCALENDAR") {
            return Self::Calendar;
        }
        // Wide text is read by its ASCII letters.
        let narrow: Vec<u8>;
        let text = if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
            narrow = head.iter().copied().filter(|byte| byte.is_ascii() && *byte != 0).collect();
            &narrow[..]
        } else {
            start
        };
        if text.starts_with(b"<") || text.starts_with(b"&") {
            use crate::bytes::contains_ignoring_case as has;
            if has(text, b"<svg") && !has(text, b"<html") {
                return Self::Svg;
            }
            let tags: [&[u8]; 8] =
                [b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<iframe", b"<meta", b"<form"];
            if tags.iter().any(|tag| has(text, tag)) {
                return Self::Html;
            }
        }
        let is_text = |byte: &u8| *byte >= 0x20 || b"\t\r\n\x0c\x1b".contains(byte);
        if !head.is_empty() && head.iter().all(is_text) || head.starts_with(b"\xff\xfe") {
            return Self::Text;
        }
        Self::Unknown
    }

    /// Archives, in which other files lie.
    pub const fn is_archive(self) -> bool {
        matches!(
            self,
            Self::Zip
                | Self::Rar
                | Self::SevenZip
                | Self::Tar
                | Self::Gzip
                | Self::Bzip2
                | Self::Xz
                | Self::Cabinet
                | Self::Iso
                | Self::OtherArchive
        )
    }

    /// True where a look at the first octets does not say enough.
    pub const fn needs_whole(self) -> bool {
        match self {
            Self::Zip
            | Self::Rar
            | Self::SevenZip
            | Self::Tar
            | Self::Gzip
            | Self::Bzip2
            | Self::Xz
            | Self::Cabinet
            | Self::Iso
            | Self::Tnef
            | Self::Ole
            | Self::Pdf
            | Self::Rtf
            | Self::OneNote
            | Self::Html
            | Self::Svg => true,
            Self::Program
            | Self::Script
            | Self::Shortcut
            | Self::DiskImage
            | Self::OtherArchive
            | Self::Help
            | Self::Picture
            | Self::Audio
            | Self::Video
            | Self::Font
            | Self::Calendar
            | Self::Text
            | Self::Unknown => false,
        }
    }
}

/// What is at the very end of a disk image.
trait EndsWithMark {
    fn ends_with_mark(&self) -> bool;
}

impl EndsWithMark for [u8] {
    fn ends_with_mark(&self) -> bool {
        let tail = self.get(self.len().saturating_sub(512)..).unwrap_or_default();
        self.len() >= 4096 && (tail.starts_with(b"conectix") || tail.starts_with(b"koly\0\0\0\x04"))
    }
}

/// `MZ` and a header that can be one: letters alone begin texts, too.
fn is_dos_program(content: &[u8]) -> bool {
    let starts = content.starts_with(b"MZ") || content.starts_with(b"ZM");
    let Some(header) = content.get(..64).filter(|_| starts) else { return false };
    let text = header.iter().all(|byte| *byte >= 0x20 || b"\t\r\n".contains(byte));
    !text
}

fn is_bitmap(content: &[u8]) -> bool {
    content.starts_with(b"BM") && content.get(6..10) == Some(&[0; 4]) || content.starts_with(b"\0\0\x01\0")
}

/// A header of the time before `ustar`: its checksum says that it is one.
fn is_old_tar(content: &[u8]) -> bool {
    let Some(header) = content.get(..512) else { return false };
    header.first().is_some_and(|byte| *byte != 0) && crate::archive::tar::checksum_holds(header)
}

/// A boot sector at the start: partition table or FAT.
fn is_partitioned(content: &[u8]) -> bool {
    let boot = content.get(510..512) == Some(&[0x55, 0xaa]);
    let jump = matches!(content.first(), Some(0xeb | 0xe9 | 0xfa | 0x33 | 0));
    boot && jump && content.len() >= 1024
}

/// What the extension of a name makes programs do.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NameClass {
    Program,
    Script,
    Shortcut,
    DiskImage,
    /// A document whose format says that it carries macros.
    MacroDocument,
    Archive,
    /// Office documents of any format.
    Office,
    Pdf,
    Web,
    Vector,
    Message,
    Picture,
    Audio,
    Video,
    Text,
    Other,
}

impl NameClass {
    /// Of a lower case extension.
    pub fn of(extension: &str) -> Self {
        // Sorted lists are read faster, but these are read by people more often.
        const PROGRAMS: &str = " exe com scr pif cpl dll ocx sys drv msi msp mst msix msixbundle appx appxbundle jar class \
            apk dex ipa deb rpm pkg mpkg app xll wll gadget application appimage run elf so dylib jnlp efi xbap \
            msu mui fon ax acm ";
        const SCRIPTS: &str = " js jse mjs vb vbs vbe vbscript ws wsf wsh wsc sct hta bat cmd btm ps1 ps1xml ps2 ps2xml psc1 \
            psc2 psd1 psm1 pssc cdxml msh msh1 msh2 mshxml msh1xml msh2xml sh bash csh ksh zsh fish command py pyc pyw \
            pyz pyzw pl rb php phtml lua au3 ahk ade adp mde mda mdb accde accdr chm hlp inf ins isp reg scf shb shs \
            theme themepack diagcab diagcfg diagpkg slk iqy rqy dqy oqy odc osd msc grp job its mam maf mag maw \
            aspx asp jsp applescript scpt workflow action tcl rgs bas ";
        const SHORTCUTS: &str = " lnk url website webloc desktop appref-ms library-ms search-ms searchconnector-ms \
            settingcontent-ms rdp wsb xnk mcf inetloc fileloc vncloc symlink ";
        const DISKS: &str =
            " iso img vhd vhdx dmg wim udf vmdk vdi qcow qcow2 toast bin-cue nrg mdf daa sparseimage esd swm ";
        const MACROS: &str = " docm dotm xlsm xltm xlam pptm potm ppam ppsm sldm xla ppa ";
        const ARCHIVES: &str = " zip zipx rar 7z tar gz tgz bz2 tbz tbz2 xz txz z cab ace arj lzh lha zst lz arc zoo uue \
            r00 r01 001 kmz ";
        const OFFICE: &str = " doc docx dot dotx xls xlsx xlsb xlt xltx ppt pptx pps ppsx pot potx rtf odt ods odp odg ott \
            ots otp one onepkg pub vsd vsdx mpp wps wri csv ";
        let in_list = |list: &str| {
            !extension.is_empty()
                && !extension.contains(' ')
                && list.split_ascii_whitespace().any(|word| word == extension)
        };
        match extension {
            _ if in_list(PROGRAMS) => Self::Program,
            _ if in_list(SCRIPTS) => Self::Script,
            _ if in_list(SHORTCUTS) => Self::Shortcut,
            _ if in_list(DISKS) => Self::DiskImage,
            _ if in_list(MACROS) => Self::MacroDocument,
            _ if in_list(ARCHIVES) => Self::Archive,
            _ if in_list(OFFICE) => Self::Office,
            "pdf" => Self::Pdf,
            "htm" | "html" | "shtml" | "xht" | "xhtml" | "mht" | "mhtml" => Self::Web,
            "svg" | "svgz" => Self::Vector,
            "eml" | "msg" => Self::Message,
            "jpg" | "jpeg" | "jpe" | "jfif" | "png" | "gif" | "bmp" | "tif" | "tiff" | "webp" | "ico" | "heic"
            | "avif" => Self::Picture,
            "mp3" | "wav" | "ogg" | "flac" | "m4a" | "wma" | "aac" | "amr" => Self::Audio,
            "mp4" | "avi" | "mov" | "mkv" | "wmv" | "mpg" | "mpeg" | "webm" | "m4v" => Self::Video,
            "txt" | "log" | "md" | "xml" | "json" | "ics" | "vcf" | "asc" => Self::Text,
            // Windows opens a class id with the program of that class.
            _ if extension.starts_with('{') && extension.ends_with('}') => Self::Script,
            _ => Self::Other,
        }
    }

    /// Of a media type in lower case, for parts without a name.
    pub fn of_type(media_type: &str) -> Self {
        match media_type {
            "application/x-msdownload"
            | "application/x-msdos-program"
            | "application/x-dosexec"
            | "application/x-executable"
            | "application/vnd.microsoft.portable-executable"
            | "application/java-archive"
            | "application/x-java-archive"
            | "application/vnd.android.package-archive"
            | "application/x-msi" => Self::Program,
            "text/javascript"
            | "application/javascript"
            | "application/x-javascript"
            | "text/vbscript"
            | "application/hta"
            | "application/x-sh"
            | "application/x-bat"
            | "application/x-powershell" => Self::Script,
            "application/x-ms-shortcut" | "application/internet-shortcut" => Self::Shortcut,
            "application/x-iso9660-image" | "application/x-apple-diskimage" => Self::DiskImage,
            _ => Self::Other,
        }
    }

    /// Names that people open without fear: a second extension after one of these is a trick.
    pub const fn is_harmless(self) -> bool {
        matches!(
            self,
            Self::Office
                | Self::Pdf
                | Self::Picture
                | Self::Audio
                | Self::Video
                | Self::Text
                | Self::Message
                | Self::Web
                | Self::Vector
                | Self::Archive
        )
    }

    /// What runs or leads elsewhere when it is opened.
    pub const fn is_dangerous(self) -> bool {
        matches!(self, Self::Program | Self::Script | Self::Shortcut)
    }

    /// False if content of that kind has no business under such a name. What is not known agrees with everything.
    pub const fn agrees(self, kind: Kind) -> bool {
        match (self, kind) {
            (_, Kind::Unknown) | (Self::Other, _) => true,
            (Self::Picture, kind) => matches!(kind, Kind::Picture | Kind::Video | Kind::Svg | Kind::Text),
            (Self::Audio | Self::Video, kind) => matches!(kind, Kind::Audio | Kind::Video | Kind::Text),
            (Self::Pdf, kind) => matches!(kind, Kind::Pdf | Kind::Text),
            (Self::Office | Self::MacroDocument, kind) => matches!(
                kind,
                Kind::Ole | Kind::Zip | Kind::Rtf | Kind::Text | Kind::Html | Kind::OneNote | Kind::Cabinet | Kind::Pdf
            ),
            (Self::Archive, kind) => kind.is_archive() || matches!(kind, Kind::Text),
            (Self::Text, kind) => matches!(kind, Kind::Text | Kind::Html | Kind::Svg | Kind::Calendar | Kind::Pdf),
            (Self::Message, kind) => matches!(kind, Kind::Text | Kind::Ole | Kind::Html),
            (Self::Web | Self::Vector, kind) => matches!(kind, Kind::Html | Kind::Svg | Kind::Text | Kind::Gzip),
            (Self::Program | Self::Script | Self::Shortcut | Self::DiskImage, _) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_its_kind() {
        let mut iso = vec![0; 0x8001];
        iso.extend_from_slice(b"CD001\x01");
        let mut tar = vec![0; 257];
        tar.extend_from_slice(b"ustar\x0000");
        let mut pe = b"MZ\x90\0".to_vec();
        pe.resize(64, 0);
        for (content, kind) in [
            (&pe[..], Kind::Program),
            (b"MZ is how this letter of more than sixty-four letters begins, no program.", Kind::Text),
            (b"\x7fELF\x02", Kind::Program),
            (b"#!/bin/sh\n", Kind::Script),
            (b"PK\x03\x04", Kind::Zip),
            (b"Rar!\x1a\x07\x01\0", Kind::Rar),
            (&iso, Kind::Iso),
            (&tar, Kind::Tar),
            (b"junk\n%PDF-1.4", Kind::Pdf),
            (b"{\\rtf1", Kind::Rtf),
            (b" \r\n<!DOCTYPE HTML>", Kind::Html),
            (b"<?xml version='1.0'?><svg xmlns='x'/>", Kind::Svg),
            (b"<?xml version='1.0'?><a/>", Kind::Text),
            (b"\xff\xfe<\0s\0c\0r\0i\0p\0t\0", Kind::Html),
            (b"BEGIN:VCALENDAR\r\n", Kind::Calendar),
            (b"Hello", Kind::Text),
            (b"\x89PNG\r\n\x1a\n", Kind::Picture),
            (b"\0\x02\x03", Kind::Unknown),
            (b"", Kind::Unknown),
        ] {
            assert_eq!(Kind::of(content), kind, "{content:?}");
        }
    }

    #[test]
    fn names_tell_what_opens_them() {
        for (extension, class) in [
            ("exe", NameClass::Program),
            ("lnk", NameClass::Shortcut),
            ("hta", NameClass::Script),
            ("iso", NameClass::DiskImage),
            ("docm", NameClass::MacroDocument),
            ("{3050f4d8-98b5-11cf-bb82-00aa00bdce0b}", NameClass::Script),
            ("docx", NameClass::Office),
            ("", NameClass::Other),
            ("xyz", NameClass::Other),
        ] {
            assert_eq!(NameClass::of(extension), class, "{extension}");
        }
        assert!(NameClass::Office.agrees(Kind::Rtf) && !NameClass::Pdf.agrees(Kind::Zip));
    }
}
