const { Client } = require('pg')
const { ssl, tries } = require('./tries.cjs')

tries('pg', async () => {
  const client = new Client({ ssl })
  try {
    await client.connect()
    return (await client.query('select pg_backend_pid() as pid')).rows[0].pid
  } finally {
    await client.end()
  }
})
