//! What senders are told, in German, Italian and English: which one a sender reads is not known.

use mail::Enhanced;

/// German, Italian, English.
pub(crate) type Words = [&'static str; 3];

pub(crate) const FAILED: Words = [
    "Ihre Nachricht konnte nicht zugestellt werden.",
    "Il suo messaggio non ha potuto essere consegnato.",
    "Your message could not be delivered.",
];
pub(crate) const DELAYED: Words = [
    "Ihre Nachricht ist noch unterwegs. Sie m\u{fc}ssen nichts tun: es wird weiter versucht, sie zuzustellen.",
    "Il suo messaggio \u{e8} ancora in viaggio. Non deve fare nulla: si continua a tentare la consegna.",
    "Your message is still on its way. There is nothing that you need to do: delivery will be tried again.",
];
pub(crate) const DELIVERED: Words =
    ["Ihre Nachricht wurde zugestellt.", "Il suo messaggio \u{e8} stato consegnato.", "Your message was delivered."];
pub(crate) const RELAYED: Words = [
    "Ihre Nachricht wurde einem Server \u{fc}bergeben, der keine Zustellbest\u{e4}tigungen schickt.",
    "Il suo messaggio \u{e8} stato affidato a un server che non invia conferme di consegna.",
    "Your message was handed to a server that does not confirm deliveries.",
];

/// What a status means to somebody who knows nothing of mail servers.
pub(crate) fn explain(code: Enhanced) -> Words {
    match (code.1, code.2) {
        (1, 1) => [
            "Diese Adresse gibt es dort nicht. Pr\u{fc}fen Sie, ob sie richtig geschrieben ist.",
            "Questo indirizzo non esiste. Controlli che sia scritto correttamente.",
            "There is no such address there. Check that it is spelled correctly.",
        ],
        (1, 2 | 10) | (4, 4) => [
            "Der Teil der Adresse nach dem @ nimmt keine E-Mail an. Pr\u{fc}fen Sie, ob er richtig geschrieben ist.",
            "La parte dell'indirizzo dopo la @ non riceve posta. Controlli che sia scritta correttamente.",
            "The part of the address after the @ takes no mail. Check that it is spelled correctly.",
        ],
        (1, 6) => [
            "Der Empf\u{e4}nger hat eine neue Adresse, die nicht bekannt ist.",
            "Il destinatario ha un nuovo indirizzo, che non \u{e8} noto.",
            "The recipient has moved to an address that is not known.",
        ],
        (2, 1) => [
            "Das Postfach des Empf\u{e4}ngers ist gesperrt.",
            "La casella del destinatario \u{e8} disattivata.",
            "The recipient's mailbox is closed.",
        ],
        (2, 2) => [
            "Das Postfach des Empf\u{e4}ngers ist voll. Versuchen Sie es sp\u{e4}ter wieder.",
            "La casella del destinatario \u{e8} piena. Riprovi pi\u{f9} tardi.",
            "The recipient's mailbox is full. Try again later.",
        ],
        (2 | 3, 3 | 4) => [
            "Die Nachricht ist dem Server des Empf\u{e4}ngers zu gro\u{df}. Verkleinern Sie die Anh\u{e4}nge.",
            "Il messaggio \u{e8} troppo grande per il server del destinatario. Riduca gli allegati.",
            "The message is too large for the recipient's server. Make the attachments smaller.",
        ],
        (4, 1..=3) => [
            "Der Server des Empf\u{e4}ngers ist nicht zu erreichen.",
            "Il server del destinatario non \u{e8} raggiungibile.",
            "The recipient's server cannot be reached.",
        ],
        (4, 6) => [
            "Die Nachricht w\u{fc}rde im Kreis laufen.",
            "Il messaggio girerebbe in tondo.",
            "The message would run in a circle.",
        ],
        (4, 7) => [
            "Es wurde lange vergeblich versucht, die Nachricht zuzustellen.",
            "La consegna \u{e8} stata tentata a lungo senza successo.",
            "Delivery was tried for a long time without success.",
        ],
        (6, 7) => [
            "Der Server des Empf\u{e4}ngers versteht keine Adressen mit Umlauten oder anderen besonderen Buchstaben.",
            "Il server del destinatario non accetta indirizzi con lettere accentate o speciali.",
            "The recipient's server does not take addresses with accents or other special letters.",
        ],
        (7, 10) => [
            "Die Nachricht darf nur gesch\u{fc}tzt \u{fc}bertragen werden, was der Server des Empf\u{e4}ngers nicht kann.",
            "Il messaggio pu\u{f2} viaggiare solo protetto, e il server del destinatario non lo consente.",
            "The message may travel protected only, which the recipient's server cannot do.",
        ],
        (7, 20..=26) => [
            "Der Server des Empf\u{e4}ngers konnte nicht feststellen, dass die Nachricht wirklich von Ihnen ist.",
            "Il server del destinatario non ha potuto verificare che il messaggio sia davvero Suo.",
            "The recipient's server could not tell that the message is really yours.",
        ],
        (7, _) => [
            "Der Server des Empf\u{e4}ngers weist die Nachricht ab, weil seine Regeln es verlangen.",
            "Il server del destinatario rifiuta il messaggio in base alle sue regole.",
            "The recipient's server refuses the message because of its rules.",
        ],
        _ => [
            "Der Server des Empf\u{e4}ngers hat die Nachricht nicht angenommen.",
            "Il server del destinatario non ha accettato il messaggio.",
            "The recipient's server did not take the message.",
        ],
    }
}
