// Bearer tokens as the service expects them: HS256 JWTs signed with its own secret.

import crypto from 'k6/crypto';
import encoding from 'k6/encoding';

import { config } from './config.js';

const LIFETIME_SECONDS = 3600;

const encode = (claims) => encoding.b64encode(JSON.stringify(claims), 'rawurl');
const HEADER = encode({ alg: 'HS256', typ: 'JWT' });

export function token(subject, scope = 'buy') {
  const expiresAt = Math.floor(Date.now() / 1000) + LIFETIME_SECONDS;
  const unsigned = `${HEADER}.${encode({ sub: subject, scope, exp: expiresAt })}`;
  return `${unsigned}.${crypto.hmac('sha256', config.authSecret, unsigned, 'base64rawurl')}`;
}
