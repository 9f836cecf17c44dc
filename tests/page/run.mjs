// All tests of the page, one after the other: `cargo build --release && node tests/page/run.mjs`; ./check installs what they need.

import "./screen.mjs";
import "./connection.mjs";
import "./honest.mjs";
import "./looks.mjs";
import "./examples.mjs";
import "./speed.mjs";
