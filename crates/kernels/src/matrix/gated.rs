//! The product of gate and up: their panels alternate, so that whoever has the sums of both makes one group of the next
//! product's input of them, and neither passes through memory.
#![expect(unsafe_code, reason = "panels and output columns are handed to different workers")]

use std::mem::MaybeUninit;

use super::layout::PANEL;
use super::sink::Target;
use super::{Matrix, ProductInput, ROW_CHUNK, Split};
use crate::activation::Activation;
use crate::memory::Shared;
use crate::threads::Turn;

impl Matrix {
    /// `output = activation(gate) * up` for a product of gate and up, rounded at once to what the next product reads:
    /// (M, rows / 2).
    ///
    /// # Panics
    /// When the lengths do not fit, the rows were made for another mode, or the matrix is not paired.
    pub fn apply_gated(
        &self,
        turn: &Turn<'_>,
        input: &ProductInput,
        bias: Option<&[f32]>,
        activation: Activation,
        output: &mut ProductInput,
    ) {
        self.check_input(input, bias);
        assert!(self.paired, "gate and up do not alternate: use `pack_gated`");
        output.resize(input.rows(), self.rows / 2);
        let (writer, source) = (output.writer(), input.source());
        if input.rows() == 0 {
            return;
        }
        let isa = turn.isa();
        let split = Split::new(turn.threads(), self.panels.len() / 2, input.rows(), self.data.len());
        turn.run_near(split.tasks(), &|task, _| {
            let (pairs, rows) = split.part(task);
            for pair in pairs {
                let (gate, up) = (&self.panels[2 * pair], &self.panels[2 * pair + 1]);
                for start in rows.clone().step_by(ROW_CHUNK) {
                    let rows = start..rows.end.min(start + ROW_CHUNK);
                    let mut sums = [const { MaybeUninit::<[f32; PANEL]>::uninit() }; ROW_CHUNK];
                    let sums = Shared::new(sums.as_mut_ptr().cast::<f32>());
                    // SAFETY: as in `multiply`. The gate's sums, whole vectors of them, are written before they are read,
                    // and the group that a pair becomes is written by its task alone.
                    unsafe {
                        let target = Target::Floats { output: sums, stride: PANEL, from: start };
                        let mut sink = self.sink(gate, target, bias);
                        (sink.first, sink.columns) = (0, PANEL);
                        self.multiply_panel(isa, gate, source, rows.clone(), &sink);
                        let target =
                            Target::Gated { writer, activation, gate: sums, from: start, group: pair };
                        self.multiply_panel(isa, up, source, rows, &self.sink(up, target, bias));
                    }
                }
            }
        });
    }
}
