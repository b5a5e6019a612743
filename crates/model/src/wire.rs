//! Protocol buffers, field by field: the format of SentencePiece's and of ONNX's files. Nothing is copied.

/// A field's value as it is on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wire<'a> {
    Number(u64),
    Eight,
    Bytes(&'a [u8]),
    Four([u8; 4]),
}

/// The fields of one message.
pub(crate) struct Fields<'a> {
    bytes: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// Whether all of it was read.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn byte(&mut self) -> Result<u8, String> {
        let (&byte, rest) = self.bytes.split_first().ok_or("ends in the middle of a field")?;
        self.bytes = rest;
        Ok(byte)
    }

    /// The next number of a packed list, or of a key.
    pub(crate) fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0_u64;
        for shift in (0..70).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err("has a number of more than 64 bits".to_owned())
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], String> {
        let length = usize::try_from(length).ok().filter(|&length| length <= self.bytes.len());
        let (taken, rest) = self.bytes.split_at(length.ok_or("has a field that reaches beyond its end")?);
        self.bytes = rest;
        Ok(taken)
    }

    /// The next field's number and value.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Wire<'a>)>, String> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let key = self.varint()?;
        if key >> 3 == 0 {
            return Err("has a field without a number".to_owned());
        }
        let value = match key & 7 {
            0 => Wire::Number(self.varint()?),
            1 => {
                self.take(8)?;
                Wire::Eight
            }
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => {
                let bytes = self.take(4)?;
                Wire::Four(bytes.try_into().map_err(|_| "ends in the middle of a field")?)
            }
            other => return Err(format!("has a field of the wire type {other}")),
        };
        Ok(Some((key >> 3, value)))
    }
}
