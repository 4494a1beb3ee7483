// An OpenID provider for the suite: https on a loopback port of its own, everybody may sign in with any password.
// usage: node issuer.mjs CERTIFICATE KEY ID_TOKEN_SECONDS; prints `serving URL`, and ends with its standard input.
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { Provider } from 'oidc-provider';

// Notices go where nobody has to read them: standard output says one thing.
console.info = console.error;

const [certificate, key, idTokenSeconds] = process.argv.slice(2);
const groups = { ana: ['oncall', 'staff'], ben: ['staff'] };

const signing = () => {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return { ...privateKey.export({ format: 'jwk' }), alg: 'ES256', use: 'sig', kid: randomBytes(8).toString('hex') };
};

const configuration = {
  clients: ['leasehold', 'other'].map((client_id) => ({
    client_id,
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    response_types: ['code'],
    redirect_uris: ['http://127.0.0.1/callback'],
    id_token_signed_response_alg: 'ES256',
  })),
  claims: { openid: ['sub'], groups: ['groups'] },
  // Groups in the ID token itself, as the broker reads them.
  conformIdTokenClaims: false,
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, groups: groups[id] ?? [] }) }),
  features: { deviceFlow: { enabled: true }, revocation: { enabled: true }, devInteractions: { enabled: true } },
  ttl: { IdToken: Number(idTokenSeconds), AccessToken: 3600, RefreshToken: 86400, Grant: 86400, Session: 86400,
    Interaction: 3600, DeviceCode: 600 },
  cookies: { keys: [randomBytes(32).toString('hex')] },
  jwks: { keys: [signing()] },
};

const server = createServer({ cert: readFileSync(certificate), key: readFileSync(key) });
server.listen(0, '127.0.0.1', () => {
  const url = `https://localhost:${server.address().port}`;
  const provider = new Provider(url, configuration);
  server.on('request', provider.callback());
  console.log(`serving ${url}`);
});
process.stdin.on('end', () => process.exit(0)).resume();
