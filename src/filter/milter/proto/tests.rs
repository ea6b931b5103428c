use super::*;

fn commands() -> Vec<Command> {
    vec![
        Command::Negotiate(Negotiation { version: 6, actions: 0x1ff, steps: 0x1f_ffff }),
        Command::Macros { command: b'C', values: vec![(b"j".to_vec(), b"mx.test".to_vec())] },
        Command::Macros { command: b'M', values: vec![] },
        Command::Connect { host: b"mail.test".to_vec(), address: Address::of("192.0.2.1".parse().unwrap(), 4025) },
        Command::Connect { host: b"mail.test".to_vec(), address: Address::of("2001:db8::1".parse().unwrap(), 25) },
        Command::Connect { host: b"localhost".to_vec(), address: Address::Unknown },
        Command::Connect { host: b"localhost".to_vec(), address: Address::Unix(b"/run/x".to_vec()) },
        Command::Helo(b"mail.test".to_vec()),
        Command::Mail(vec![b"<a@x.test>".to_vec(), b"SIZE=10".to_vec()]),
        Command::Rcpt(vec![b"<b@y.test>".to_vec()]),
        Command::Data,
        Command::Header { name: b"Subject".to_vec(), value: b" a\n b".to_vec() },
        Command::EndOfHeaders,
        Command::Body(b"x\r\n\0y".to_vec()),
        Command::EndOfMessage,
        Command::Abort,
        Command::QuitForNext,
        Command::Unknown(b"WHAT".to_vec()),
        Command::Quit,
    ]
}

fn responses() -> Vec<Response> {
    let text = || b"text".to_vec();
    vec![
        Response::Negotiate(Negotiation { version: 2, actions: 0, steps: 0 }),
        Response::Continue,
        Response::Accept,
        Response::Reject,
        Response::TempFail,
        Response::Discard,
        Response::Skip,
        Response::Progress,
        Response::ReplyCode(b"550 5.7.1 no".to_vec()),
        Response::Quarantine(text()),
        Response::AddHeader { name: text(), value: text() },
        Response::InsertHeader { index: 1, name: text(), value: text() },
        Response::ChangeHeader { index: 2, name: text(), value: Vec::new() },
        Response::AddRecipient(text()),
        Response::AddRecipientWith(vec![text(), text()]),
        Response::DeleteRecipient(text()),
        Response::ReplaceBody(text()),
        Response::ChangeFrom(vec![text()]),
        Response::Shutdown,
        Response::ConnectionFailed,
    ]
}

fn wire(packets: impl IntoIterator<Item = Packet>) -> Vec<u8> {
    let mut out = Vec::new();
    packets.into_iter().for_each(|packet| packet.write(&mut out));
    out
}

fn read_all(reader: &mut PacketReader, out: &mut Vec<Packet>) {
    while let Some(packet) = reader.next_packet().unwrap() {
        out.push(packet);
    }
}

#[test]
fn what_is_written_reads_back_wherever_the_stream_is_split() {
    let stream = wire(commands().iter().map(Command::to_packet).chain(responses().iter().map(Response::to_packet)));
    for split in 0..=stream.len() {
        let (mut reader, mut packets) = (PacketReader::default(), Vec::new());
        for part in [&stream[..split], &stream[split..]] {
            reader.feed(part);
            read_all(&mut reader, &mut packets);
        }
        let (head, tail) = packets.split_at(commands().len());
        assert_eq!(head.iter().map(|p| Command::parse(p).unwrap()).collect::<Vec<_>>(), commands());
        assert_eq!(tail.iter().map(|p| Response::parse(p).unwrap()).collect::<Vec<_>>(), responses());
    }
    let (mut reader, mut packets) = (PacketReader::default(), Vec::new());
    for byte in &stream {
        reader.feed(&[*byte]);
        read_all(&mut reader, &mut packets);
    }
    assert_eq!(packets.len(), commands().len() + responses().len());
}

#[test]
fn packets_as_other_programs_write_them() {
    for (bytes, command) in [
        (&b"\0\0\0\x0dO\0\0\0\x06\0\0\x01\xff\0\x1f\xff\xff"[..], commands().remove(0)),
        (b"\0\0\0\x18Cmail.test\x004\x0f\xb9192.0.2.1\0", commands().remove(3)),
        (b"\0\0\0\x01E", Command::EndOfMessage),
    ] {
        let mut reader = PacketReader::default();
        reader.feed(bytes);
        assert_eq!(Command::parse(&reader.next_packet().unwrap().unwrap()), Ok(command));
    }
    let sendmail = Address::Inet { family: command::Family::V6, port: 25, ip: b"IPv6:2001:db8::1".to_vec() };
    assert_eq!(sendmail.ip(), "2001:db8::1".parse().ok());
}

#[test]
fn nonsense_is_refused_and_bounded() {
    let mut reader = PacketReader::default();
    reader.feed(&[0xff; 8]);
    assert!(matches!(reader.next_packet(), Err(ProtocolError::TooLong { .. })));
    let mut reader = PacketReader::default();
    reader.feed(&[0; 4]);
    assert_eq!(reader.next_packet(), Err(ProtocolError::Empty));
    for (code, data) in [
        (b'H', &b"no end"[..]),
        (b'H', b"two\0texts\0"),
        (b'L', b"name only\0"),
        (b'C', b"host\0"),
        (b'C', b"host\x004\0"),
        (b'C', b"host\0X\0\0x\0"),
        (b'O', b"\0\0\0\x06"),
        (b'D', b""),
        (b'E', b"x"),
        (b'z', b""),
    ] {
        assert!(Command::parse(&Packet { code, data: data.to_vec() }).is_err(), "{}", code as char);
    }
    // A NUL inside a text cannot shift what follows.
    let sly = Response::AddHeader { name: b"X\0Y".to_vec(), value: b"1".to_vec() };
    let plain = Response::AddHeader { name: b"X Y".to_vec(), value: b"1".to_vec() };
    assert_eq!(Response::parse(&sly.to_packet()), Ok(plain));
}

#[test]
fn mutated_streams_never_panic() {
    let stream = wire(commands().iter().map(Command::to_packet).chain(responses().iter().map(Response::to_packet)));
    let mut state = 0x2545_f491_4f6c_dd1du64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below as u64).unwrap()
    };
    for _ in 0..20_000 {
        let mut mutated = stream.clone();
        for _ in 0..=random(4) {
            let at = random(mutated.len());
            match random(3) {
                0 => mutated[at] = u8::try_from(random(256)).unwrap(),
                1 => drop(mutated.remove(at)),
                _ => mutated.insert(at, u8::try_from(random(256)).unwrap()),
            }
        }
        let mut reader = PacketReader::default();
        reader.feed(&mutated);
        while let Ok(Some(packet)) = reader.next_packet() {
            if let Ok(command) = Command::parse(&packet) {
                assert_eq!(Command::parse(&command.to_packet()), Ok(command));
            }
            if let Ok(response) = Response::parse(&packet) {
                assert_eq!(Response::parse(&response.to_packet()), Ok(response));
            }
        }
    }
}
