// The dashboards against Grafana's own schema, made from its types: `node tests/dashboards/schema.mjs`. Panels' options and custom fields by
// their plugins' types.

import { readFileSync, readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";
import Ajv from "../.deps/node_modules/ajv/dist/ajv.js";
import { createGenerator } from "../.deps/node_modules/ts-json-schema-generator/dist/index.js";

const TYPES = fileURLToPath(new URL("../.deps/node_modules/@grafana/schema/dist/types/raw/", import.meta.url));
const DASHBOARDS = fileURLToPath(new URL("../../dashboards/grafana/", import.meta.url));
const PLUGINS = { stat: "stat", timeseries: "timeseries", heatmap: "heatmap", "state-timeline": "statetimeline" };

/** Checks a value against a type of a file. */
function validator(path, type) {
  const schema = createGenerator({ path: TYPES + path, type, skipTypeCheck: true, additionalProperties: false, strictTuples: true }).createSchema(type);
  return new Ajv.Ajv({ allErrors: true, strict: false, validateFormats: false }).compile(schema);
}

const wrong = [];
const check = (where, validate, value) => {
  if (!validate(value)) wrong.push(...validate.errors.map(({ instancePath, message, params }) => `${where}${instancePath}: ${message} ${JSON.stringify(params)}`));
};

const dashboard = validator("dashboard/x/types.gen.d.ts", "Dashboard");
const plugins = Object.fromEntries(Object.entries(PLUGINS).map(([name, folder]) => {
  const path = `composable/${folder}/panelcfg/x/types.gen.d.ts`;
  return [name, { options: validator(path, "Options"), custom: name === "stat" ? null : validator(path, "FieldConfig") }];
}));

const dashboards = readdirSync(DASHBOARDS).filter((name) => name.endsWith(".json"));
let panels = 0;
for (const name of dashboards) {
  const json = JSON.parse(readFileSync(DASHBOARDS + name, "utf8"));
  check(name, dashboard, json);
  for (const panel of json.panels.filter(({ type }) => type !== "row")) {
    const plugin = plugins[panel.type];
    if (!plugin) {
      wrong.push(`${name}: ${panel.title}: there is no schema here for panels of type ${panel.type}`);
      continue;
    }
    check(`${name}: ${panel.title}: options`, plugin.options, panel.options);
    if (plugin.custom) check(`${name}: ${panel.title}: custom`, plugin.custom, panel.fieldConfig.defaults.custom);
    panels += 1;
  }
}
if (dashboards.length < 3 || panels < 20) wrong.push(`only ${dashboards.length} dashboards with ${panels} panels`);
if (wrong.length > 0) {
  console.error(wrong.slice(0, 40).join("\n"));
  process.exit(1);
}
console.log(`${dashboards.length} dashboards, ${panels} panels`);
