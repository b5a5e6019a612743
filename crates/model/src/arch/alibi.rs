//! Slopes of attention with linear biases (ALiBi, arXiv:2108.12409).

/// One slope per head: powers of one base for the largest power of two of heads, every second power of its root for
/// the others.
pub(super) fn slopes(heads: usize) -> Vec<f32> {
    let closest = 1_usize << heads.max(1).ilog2();
    let base = |heads: usize| (-((-((heads as f64).log2() - 3.0)).exp2())).exp2() as f32;
    let first = (1..=closest).map(|power| base(closest).powi(power as i32));
    let others = (0..heads - closest).map(|index| base(2 * closest).powi(2 * index as i32 + 1));
    first.chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::slopes;

    #[test]
    fn slopes_are_those_of_the_paper() {
        assert_eq!(slopes(4), [0.25, 0.0625, 0.015_625, 0.003_906_25]);
        assert_eq!(slopes(6), [0.25, 0.0625, 0.015_625, 0.003_906_25, 0.5, 0.125]);
        // Baichuan-13B has 40 heads: 32 of one row, 8 of the other.
        let of_40 = slopes(40);
        assert_eq!(of_40.len(), 40);
        assert!((of_40[0] - 0.840_896_4).abs() < 1e-6 && (of_40[31] - 0.003_906_25).abs() < 1e-8);
        assert!((of_40[32] - 0.917_004_05).abs() < 1e-6 && (of_40[33] - 0.771_105_4).abs() < 1e-6);
    }
}
