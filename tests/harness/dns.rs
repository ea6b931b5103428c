//! A name server that knows no name: mail from invented domains is judged without the world outside.

use std::net::{SocketAddr, UdpSocket};

/// Answers until the process ends. One thread for all nodes.
pub fn address() -> SocketAddr {
    static ADDRESS: std::sync::OnceLock<SocketAddr> = std::sync::OnceLock::new();
    *ADDRESS.get_or_init(|| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        std::thread::spawn(move || answer(&socket));
        address
    })
}

/// Answers whatever comes to the socket.
pub fn answer(socket: &UdpSocket) {
    let mut packet = [0u8; 1500];
    while let Ok((length, peer)) = socket.recv_from(&mut packet) {
        if length < 12 {
            continue;
        }
        // A response, recursion available, name does not exist; the question is repeated, nothing else.
        packet[2] |= 0x80;
        packet[3] = 0x83;
        packet[6..12].fill(0);
        let mut end = 12;
        while end < length && packet[end] != 0 {
            end += usize::from(packet[end]) + 1;
        }
        let _ = socket.send_to(&packet[..(end + 5).min(length)], peer);
    }
}
