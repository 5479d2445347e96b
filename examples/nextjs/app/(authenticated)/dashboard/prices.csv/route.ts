import { BackendUnavailable, findSession, readJson, SessionEnded } from '@/lib/api';

import type { Quote } from '../live-prices';

/** GET /dashboard/prices.csv. A route handler has no layout and no page around it, so it asks for the session itself. */
export async function GET(): Promise<Response> {
  try {
    const session = await findSession();
    if (session === null) return problem(401, 'invalid_session');
    const { prices } = await readJson<{ prices: Quote[] }>(await session.apiFetch('/prices'));
    const lines = ['symbol,price', ...prices.map(({ symbol, price }) => `${symbol},${price}`)];
    return new Response(`${lines.join('\r\n')}\r\n`, {
      headers: { ...NOT_KEPT, 'Content-Type': 'text/csv; charset=utf-8', 'Content-Disposition': 'attachment' },
    });
  } catch (error) {
    if (error instanceof SessionEnded) return problem(401, 'invalid_session');
    if (error instanceof BackendUnavailable) return problem(503, 'unavailable');
    throw error;
  }
}

const NOT_KEPT = { 'Cache-Control': 'private, no-store' };

function problem(status: number, code: string): Response {
  return Response.json({ code }, { status, headers: NOT_KEPT });
}
