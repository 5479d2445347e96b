import type { Metadata } from 'next';

import { readJson, verifySession } from '@/lib/api';

import { SettingsForm } from './settings-form';

export const metadata: Metadata = { title: 'Settings' };

export default async function SettingsPage({ searchParams }: PageProps<'/settings'>) {
  const { user, apiFetch } = await verifySession('/settings', await searchParams);
  const { note } = await readJson<{ note: string }>(await apiFetch('/settings'));
  return (
    <>
      <h1>Settings of {user.name}</h1>
      <SettingsForm note={note} />
    </>
  );
}
