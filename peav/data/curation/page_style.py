"""The looks of the page of a manifest, those of the report of an evaluation."""

from __future__ import annotations

#: The style sheet.
CSS = """\
:root {
  color-scheme: light dark;
  --paper: #f6f7f8; --card: #ffffff; --ink: #22303c; --muted: #5d6b78; --line: #dfe5ea; --accent: #0b5c86; --bad: #a3402a;
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #171c21; --card: #20272e; --ink: #e4e9ed; --muted: #9aa7b3; --line: #35404a; --accent: #79bde3; --bad: #e39a84; }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 44px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 0 0 6px; }
p { margin: 0 0 12px; max-width: 76ch; }
.note, figcaption { color: var(--muted); font-size: 14px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 24px 28px; margin: 22px 0; }
.numbers { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 14px; margin: 24px 0 0; }
.number { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 16px 18px; }
.number .label, .number .versus { font-size: 14px; color: var(--muted); }
.number .value { font-size: 27px; line-height: 1.15; white-space: nowrap; font-weight: 650; color: var(--accent); }
figure { margin: 14px 0 0; }
figure > img { display: block; width: 100%; height: auto; background: #fff; border-radius: 6px; padding: 6px; }
.tables { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 440px), 1fr)); gap: 22px; align-items: start; }
.scroll { overflow-x: auto; }
table, .value { font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: right; padding: 6px 10px; border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; vertical-align: bottom; line-height: 1.3; }
th:first-child, td:first-child { text-align: left; min-width: 11ch; }
td:first-child { overflow-wrap: break-word; }
.clips { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); gap: 16px; margin-top: 12px; }
.clip { border: 1px solid var(--line); border-radius: 8px; overflow: hidden; font-size: 13.5px; }
.clip img { display: block; width: 100%; background: #fff; }
.clip img.frame { aspect-ratio: 16 / 10; object-fit: contain; background: #10151a; }
.clip audio { display: block; width: calc(100% - 16px); height: 40px; margin: 8px 8px 0; }
.clip .words { padding: 8px 12px 12px; overflow-wrap: anywhere; }
.clip .head { font-weight: 650; }
.clip ul { margin: 6px 0 0; padding-left: 18px; }
.clip .kind, .clip .origin { color: var(--muted); }
.error { color: var(--bad); margin: 6px 0 0; }
.blank { padding: 34px 0; text-align: center; color: var(--muted); }
@media (max-width: 640px) {
  main, header, footer { padding: 0 12px; }
  header { padding-top: 24px; }
  section { padding: 16px 14px; }
  h1 { font-size: 24px; }
  /* A figure keeps a size at which its words can be read; the finger moves it. */
  figure { overflow-x: auto; }
  figure > img { width: 760px; max-width: none; }
  th, td { padding: 6px; }
}
footer { padding-bottom: 40px; color: var(--muted); font-size: 13.5px; }
@media (max-width: 640px) { section { padding: 18px 16px; } }
@media print { body { background: #fff; } .clip { break-inside: avoid; } }
"""
