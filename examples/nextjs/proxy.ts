// The page boundary: is there a cookie at all? It asks nobody and takes less than a millisecond. It is for the visitor's
// comfort and protects nothing: each page, route handler and server action asks for the session itself.
//
// A page that is shown gets a policy (CSP) with a new nonce. Next.js reads the nonce from the request's header and puts it
// on its own scripts. No other script runs.

import { NextResponse, type NextRequest } from 'next/server';

import { contentSecurityPolicy } from '@/lib/content-security-policy';
import { loginPath, safeReturnTo } from '@/lib/paths';
import { mayHaveSession } from '@/lib/session-cookies';

export function proxy(request: NextRequest): NextResponse {
  const { pathname, search, searchParams } = request.nextUrl;
  const visitor = mayHaveSession(request.cookies) ? 'known' : 'unknown';

  if (pathname === '/login') {
    // `ended`: the cookies that are still there were refused. To send them back to the page would be a loop.
    if (visitor === 'unknown' || searchParams.get('ended') === '1') return page(request);
    return redirect(request, safeReturnTo(searchParams.getAll('returnTo')));
  }
  if (pathname === '/session' || visitor === 'known') return page(request);
  return redirect(request, loginPath(safeReturnTo(pathname + search.replaceAll('%20', '+'))));
}

function page(request: NextRequest): NextResponse {
  const policy = contentSecurityPolicy(btoa(crypto.randomUUID()));
  const headers = new Headers(request.headers);
  headers.set('Content-Security-Policy', policy);
  const response = NextResponse.next({ request: { headers } });
  response.headers.set('Content-Security-Policy', policy);
  return response;
}

function redirect(request: NextRequest, path: string): NextResponse {
  const response = NextResponse.redirect(new URL(path, request.url), 307);
  response.headers.set('Cache-Control', 'private, no-store'); // the answer depends on the cookie
  return response;
}

export const config = {
  matcher: [
    {
      // All pages. The relay's paths, Next.js's own files and the icon are left alone.
      source: '/((?!api/|auth/|ws/|_next/|favicon\\.ico$|robots\\.txt$).*)',
      // A client navigation (RSC) and a server action must get their own answer: a redirect to a page of HTML breaks them.
      // Next.js removes both headers before it calls the function above, so only the matcher can tell.
      missing: [
        { type: 'header', key: 'rsc' },
        { type: 'header', key: 'next-action' },
      ],
    },
  ],
};
