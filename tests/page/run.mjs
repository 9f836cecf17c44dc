// All tests of the page, sequentially: `cargo build --release && node tests/page/run.mjs`; ./check installs their dependencies.

import "./screen.mjs";
import "./connection.mjs";
import "./token.mjs";
import "./honest.mjs";
import "./looks.mjs";
import "./examples.mjs";
import "./speed.mjs";
