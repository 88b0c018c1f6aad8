//! The pinned date of a chat template, formatted as Python's `strftime` would.

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];

/// A calendar date without a clock; midnight where a template asks for a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PinnedDate {
    year: u32,
    /// From 1.
    month: u32,
    day: u32,
}

impl PinnedDate {
    /// Reads `26 Jul 2024`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(' ').collect();
        let [day, month, year] = parts.as_slice() else {
            return None;
        };
        let month = MONTHS.iter().position(|name| &name[..3] == *month)? as u32 + 1;
        let (day, year) = (day.parse::<u32>().ok()?, year.parse::<u32>().ok()?);
        let leap =
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
        let days = match month {
            2 if leap => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let valid = (1..=days).contains(&day) && (1..=9999).contains(&year);
        valid.then_some(Self { year, month, day })
    }

    /// The format codes templates use; another is an error that names it.
    pub(crate) fn format(self, format: &str) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c == '%' {
                text.push_str(&self.code(chars.next())?);
            } else {
                text.push(c);
            }
        }
        Ok(text)
    }

    fn code(self, code: Option<char>) -> Result<String, String> {
        let Self { year, month, day } = self;
        let month_name = MONTHS[month as usize - 1];
        let weekday = WEEKDAYS[self.weekday()];
        Ok(match code {
            Some('d') => format!("{day:02}"),
            Some('e') => format!("{day:2}"),
            Some('m') => format!("{month:02}"),
            Some('Y') => format!("{year:04}"),
            Some('y') => format!("{:02}", year % 100),
            Some('b' | 'h') => month_name[..3].to_owned(),
            Some('B') => month_name.to_owned(),
            Some('a') => weekday[..3].to_owned(),
            Some('A') => weekday.to_owned(),
            Some('F') => format!("{year:04}-{month:02}-{day:02}"),
            Some('H' | 'M' | 'S') => "00".to_owned(),
            Some('%') => "%".to_owned(),
            other => {
                let other = other.map_or(String::new(), String::from);
                return Err(format!("strftime_now: format code %{other} is not known"));
            }
        })
    }

    /// 0 = Sunday; Sakamoto's method.
    fn weekday(self) -> usize {
        const SHIFT: [u32; 12] = [0, 3, 2, 5, 0, 3, 5, 1, 4, 6, 2, 4];
        let year = if self.month < 3 {
            self.year - 1
        } else {
            self.year
        };
        let sum = year + year / 4 - year / 100 + year / 400 + SHIFT[self.month as usize - 1];
        ((sum + self.day) % 7) as usize
    }
}
