//! The page's building blocks: sections, tables, pictures, escaped text.

use std::fmt::Write;

pub(super) fn section(title: &str, body: &str) -> String {
    format!("<section>\n<h2>{}</h2>\n{body}</section>\n", escape(title))
}

/// Cells are HTML already.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut html = String::from("<div class=\"scroll\"><table>\n");
    if head.iter().any(|cell| !cell.is_empty()) {
        html += "<tr>";
        for cell in head {
            let _ = write!(html, "<th>{}</th>", escape(cell));
        }
        html += "</tr>\n";
    }
    for row in rows {
        html += "<tr>";
        for cell in row {
            let _ = write!(html, "<td>{cell}</td>");
        }
        html += "</tr>\n";
    }
    html + "</table></div>\n"
}

/// An inline picture; the XML header that a file may carry has no place inside a page.
pub(super) fn figure(svg: &str) -> String {
    let start = svg.find("<svg").unwrap_or(0);
    format!("<figure>{}</figure>\n", &svg[start..])
}

/// Something the reader must see; the text is HTML already.
pub(super) fn warning(text: &str) -> String {
    format!("<p class=\"warning\">{text}</p>\n")
}

/// A share of counts; a dash where there is nothing to share.
pub(super) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c => escaped.push(c),
        }
    }
    escaped
}
