//! Text from outside is data: one printable line, without the secrets of this process, wherever it ends up.
