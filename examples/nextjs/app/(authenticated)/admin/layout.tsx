import { notFound } from 'next/navigation';
import type { ReactNode } from 'react';

import { verifySession } from '@/lib/api';

/** Shows the admin pages to admins only. The page below asks again, because a layout is not rendered at each navigation. */
export default async function AdminLayout({ children }: { children: ReactNode }) {
  const { user } = await verifySession('/admin');
  if (!user.roles.includes('admin')) notFound();
  return <section aria-label="Administration">{children}</section>;
}
