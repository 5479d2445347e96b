import type { Metadata } from 'next';
import { notFound } from 'next/navigation';

import { readJson, verifySession, type User } from '@/lib/api';

export const metadata: Metadata = { title: 'Admin' };

export default async function AdminPage({ searchParams }: PageProps<'/admin'>) {
  const { apiFetch } = await verifySession('/admin', await searchParams);
  const answer = await apiFetch('/users');
  if (answer.status === 403) notFound(); // the backend decides who is an admin
  const { users } = await readJson<{ users: User[] }>(answer);
  return (
    <>
      <h1>Users</h1>
      <table>
        <thead>
          <tr>
            <th scope="col">Name</th>
            <th scope="col">E-mail</th>
            <th scope="col">Roles</th>
          </tr>
        </thead>
        <tbody>
          {users.map(({ name, email, roles }) => (
            <tr key={email}>
              <td>{name}</td>
              <td>{email}</td>
              <td>{roles.join(', ')}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </>
  );
}
