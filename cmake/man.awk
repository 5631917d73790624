# Markdown of the manual page to roff, for any POSIX awk.
#
# SPDX-License-Identifier: Apache-2.0
#
#   awk -v version=0.1.0 -f man.awk splitkv.1.md > splitkv.1
#
# Knows what the manual uses: # title, ## and ### sections, paragraphs, ``` blocks, - lists with
# continuation lines, | tables | (first cell the term, the rest its description), > quotes as
# paragraphs, and in the text **bold**, *emphasis*, `code`, [text](link) and \-escapes.

function escape(text) {
  gsub(/\\/, "\\e", text)
  gsub(/-/, "\\-", text)
  return text
}

# Pairs of `mark` around text become font changes; an odd mark stays as it is.
function pairs(text, mark, font,    out, start, end, n) {
  out = ""
  n = length(mark)
  while ((start = index(text, mark)) > 0) {
    end = index(substr(text, start + n), mark)
    if (end < 2) {
      out = out substr(text, 1, start + n - 1)
      text = substr(text, start + n)
      continue
    }
    out = out substr(text, 1, start - 1) "\\f" font substr(text, start + n, end - 1) "\\fR"
    text = substr(text, start + n + end - 1 + n)
  }
  return out text
}

# Code spans first: what is in them is literal, so * and [ inside are hidden from the other rules.
function inline(text,    out, start, end, code) {
  out = ""
  gsub(/\\\|/, "|", text)
  text = escape(text)
  gsub(/\\e\*/, "\001", text)
  gsub(/\\e_/, "_", text)
  while ((start = index(text, "`")) > 0) {
    end = index(substr(text, start + 1), "`")
    if (end == 0) {
      break
    }
    code = substr(text, start + 1, end - 1)
    gsub(/\*/, "\001", code)
    gsub(/\[/, "\002", code)
    out = out substr(text, 1, start - 1) "\\fB" code "\\fR"
    text = substr(text, start + end + 1)
  }
  text = out text
  while (match(text, /\[[^]]*\]\([^)]*\)/)) {
    out = substr(text, RSTART + 1, RLENGTH - 1)
    sub(/\]\(.*/, "", out)
    text = substr(text, 1, RSTART - 1) out substr(text, RSTART + RLENGTH)
  }
  text = pairs(text, "**", "B")
  text = pairs(text, "*", "I")
  gsub(/\001/, "*", text)
  gsub(/\002/, "[", text)
  return text
}

# A line of text must not begin with a control character.
function put(text) {
  if (text ~ /^[.']/) {
    text = "\\&" text
  }
  print text
  after_heading = 0
}

function end_block() {
  if (in_table) {
    in_table = 0
    print ".PP"
  }
  in_list = 0
  need_paragraph = !after_heading
}

function heading(line,    title) {
  title = line
  sub(/^#+ */, "", title)
  gsub(/[`*]/, "", title)
  return title
}

NR == 1 && /^# / {
  name = heading($0)
  sub(/[ (].*/, "", name)
  printf ".TH %s 1 \"\" \"splitkv %s\" \"User Commands\"\n", toupper(name), version
  next
}
/^```/ {
  if (in_code) {
    print ".EE\n.RE"
    in_code = 0
    end_block()
  } else {
    end_block()
    print ".PP\n.RS 4\n.EX"
    in_code = 1
  }
  next
}
in_code { put(escape($0)); next }
/^<!--.*-->$/ { next }
/^##? / { end_block(); print ".SH \"" toupper(escape(heading($0))) "\""; after_heading = 1; next }
/^###+ / { end_block(); print ".SS \"" escape(heading($0)) "\""; after_heading = 1; next }
/^[ \t]*$/ { end_block(); next }
/^\|[-:| ]+\|?$/ { next }
/^\|/ {
  line = $0
  gsub(/\\\|/, "\003", line)
  sub(/^\| */, "", line)
  sub(/ *\|[ \t]*$/, "", line)
  n = split(line, cell, / *\| */)
  if (!in_table) { # the head row; its column names say little in a list
    in_table = 1
    next
  }
  text = cell[2]
  for (i = 3; i <= n; i++) {
    if (cell[i] != "") {
      text = text "; " cell[i]
    }
  }
  gsub(/\003/, "|", cell[1])
  gsub(/\003/, "|", text)
  print ".TP"
  put(inline(cell[1]))
  put(inline(text))
  next
}
/^[-*] / {
  if (in_table) {
    end_block()
  }
  print ".IP \\(bu 2"
  put(inline(substr($0, 3)))
  in_list = 1
  next
}
{
  line = $0
  sub(/^> ?/, "", line)
  sub(/^ +/, "", line)
  if (need_paragraph && !in_list) {
    print ".PP"
  }
  need_paragraph = 0
  put(inline(line))
}
