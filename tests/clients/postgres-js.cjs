const postgres = require('postgres')
const { token, ssl, tries } = require('./tries.cjs')

tries('postgres', async () => {
  const sql = postgres({
    password: token,
    ssl,
    max: 1,
  })
  try {
    return (await sql`select pg_backend_pid() as pid`)[0].pid
  } finally {
    await sql.end()
  }
})
