// What every client in Node.js does: connect anew again and again, and print a line for each try.
const fs = require('fs')

exports.token = () => fs.promises.readFile(process.env.TOKEN_FILE, 'utf8')
// None on the way to the local proxy.
const authorities = process.env.PGSSLROOTCERT
exports.ssl = authorities ? { ca: fs.readFileSync(authorities) } : false

// Not every package lets its own description be required.
const description = name => fs.readFileSync(`${process.env.NODE_PATH}/${name}/package.json`)

// `connect` opens a session of its own and returns the server's process.
exports.tries = async (name, connect) => {
  console.log('version', name, JSON.parse(description(name)).version)
  for (;;) {
    try {
      console.log('ok', await connect())
    } catch (error) {
      console.log('failed:', String(error).replace(/\s+/g, ' '))
    }
    await new Promise(resolve => setTimeout(resolve, 500))
  }
}
