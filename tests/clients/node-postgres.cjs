const { Pool } = require('pg')
const { token, ssl, tries } = require('./tries.cjs')

const pool = new Pool({
  password: token,
  ssl,
  // Each session is used once, so that each is a login.
  maxUses: 1,
})

tries('pg', async () =>
  (await pool.query('select pg_backend_pid() as pid')).rows[0].pid)
